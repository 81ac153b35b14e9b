"""The two towers, their losses, and the samplers of negatives: functions of indices and vectors.

Read `two_tower.py` first: it is the model. Belongs here: what is computed from a batch of rows. Does not belong here: which
rows form a batch and how weights are updated (`core/training`), files.
"""
