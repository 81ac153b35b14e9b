"""Training by several processes: how they exchange tensors, tables in shards.

Belongs here: everything that only several processes need, behind `core/training/compute.py`. Does not belong here: starting
processes (`steps/fit_process.py`), what is learned from a batch (`core/training/trainer.py`).
"""
