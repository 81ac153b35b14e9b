"""A fit by several processes, on one machine or several: how they exchange tensors, tables in shards, the command `fit`.

They share every batch behind `Ranks` (`core/training/compute.py`); evaluation by several processes is `steps/parallel.py`.
"""
