"""The two towers, their losses and the samplers of negatives: functions of indices and vectors, no tables on disk."""
