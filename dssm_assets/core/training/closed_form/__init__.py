"""Parts of a model computed in closed form, without gradients: initial embeddings and the popularity prior.

Belongs here: parts switched on by a configuration key. Does not belong here: training steps.
"""
