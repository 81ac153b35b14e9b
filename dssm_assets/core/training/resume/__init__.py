"""Fits that do not begin at random weights: resumed after a kill, or started from the model of an earlier day.

Belongs here: the format of a stored state, when one is stored, earlier weights. Does not belong here: the format of a fitted
model (`core/training/model_format.py`), files and paths (`steps/fit_job.py`).
"""
