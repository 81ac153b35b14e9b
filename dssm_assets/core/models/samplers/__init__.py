"""Samplers of negatives, one per file.

Belongs here: from which distribution negatives are drawn. A new sampler is one file, one line in `registry.py` and one
test. Does not belong here: which draws must not count for a row (`losses/loss_terms`: masks act on the logits) and what
the weights of items are (asset negative_items).
"""
