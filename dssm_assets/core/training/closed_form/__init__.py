"""Parts of a model that are computed from counts and matrices, without gradients: first embeddings, the popularity prior.

Belongs here: what `core/training/fit_options.py` switches on by a configuration key. Does not belong here: training steps.
"""
