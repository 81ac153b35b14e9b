"""Raw features: statistics, preferences and histories of users and items at the end of each day, the inputs of fg.json.

Belongs here: queries over the behavior log and the user and item tables. Does not belong here: feature generation
(`core/features`), and the choice between rolling a state and rebuilding it (`steps/features_raw.py`).
"""
