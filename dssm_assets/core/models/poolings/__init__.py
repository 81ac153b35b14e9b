"""Poolings of the user's history.

Belongs here: which events a pooling reads and the weight of each. A new pooling is one class, one line in `registry.py`,
its meaning in `PoolingKind` (core/config/model.py) and in the serving rules (core/serving/tower_layout.py), and one test.
Does not belong here: reading events from a table (`history_reader`), the layers that learn from single events
(`attention_pooling`, `sequence_encoder`): these files run without torch, in serving too.
"""
