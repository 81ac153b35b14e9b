"""Fits towers with several processes, on one machine or several: exchange of tensors, sharded tables, the command `fit`.

The processes share every batch through `Ranks` (`core/training/compute.py`). Evaluation has its own processes (`steps/parallel.py`).
"""
