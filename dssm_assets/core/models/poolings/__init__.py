"""Poolings of the user's history, one per file.

Belongs here: which events a pooling reads and the weight of each. A new pooling is one file, one line in `registry.py`, its
name in `PoolingKind` and one test. Does not belong here: reading events from a table (`models/history_reader`), the layers
that learn attention weights (`models/attention_pooling`).
"""
