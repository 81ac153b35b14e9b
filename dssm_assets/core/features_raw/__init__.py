"""Raw features: statistics, preferences and histories of users and items as of the end of each day, which fg.json reads as inputs.

Belongs here: queries over the behavior log and the user and item tables. Does not belong here: feature generation
(`core/features`), and rolling states from day to day, which decides between rolling and rebuilding (`steps/features_raw.py`).
"""
