"""Losses as functions of embeddings, one per file.

Belongs here: what is minimised, with the masks and corrections that losses share. A new loss is one file, one line in
`registry.py`, its meaning in `Loss` (core/config/model.py) and one test. Does not belong here: who the negatives are
(`samplers`, `core/training/batch_negatives.py`).
"""
