"""Parts of a model that are computed from counts and matrices, without gradients: first embeddings, the popularity prior.

Belongs here: what a configuration key switches on. Does not belong here: training steps.
"""
