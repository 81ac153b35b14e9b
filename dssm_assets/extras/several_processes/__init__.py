"""Fits towers with several processes, on one machine or several: exchanges tensors, shards tables, has the command `fit`.

The processes share every batch through `Ranks` (`core/training/compute.py`). Evaluation uses other processes (`steps/parallel.py`).
"""
