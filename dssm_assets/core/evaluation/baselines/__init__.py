"""Baselines: simple recommenders to compare a trained model with.

Belongs here: one file per baseline, named after it, with a line in `core/names.py`. Does not belong here: the model as a
scorer (`core/evaluation/scorer.py`), reading interactions from the store (`steps/stored_interactions.py`).
"""
