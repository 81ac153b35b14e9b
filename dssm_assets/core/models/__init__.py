"""The two towers, their losses, and the samplers of negatives: functions of indices and vectors.

Read `two_tower.py` first: it is the model. Belongs here: computations on a batch of rows. Does not belong here: the choice of
a batch's rows and the update of weights (`core/training`), files.
"""
