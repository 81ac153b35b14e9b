"""Samplers of negatives.

Belongs here: the distribution that negatives are drawn from. A new sampler is one class, one line in `registry.py`, its
meaning in `Sampler` (core/config/model.py) and one test. Does not belong here: which draws do not count for a row (masks
act on the logits, `core/models/losses/loss_terms.py`) and the weights of items (asset negative_items).
"""
