"""Tuning: which settings are searched, and the report of a study.

Belongs here: the search space, trials as data, the tuned configuration. Does not belong here: running trials
(`steps/tuning.py`).
"""
