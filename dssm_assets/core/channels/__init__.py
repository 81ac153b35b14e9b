"""Channels: several sources of items for a user, merged to one list.

Belongs here: a channel's proposals and signals, how the lists are merged, how the weights of the merge are fitted. The same
code runs in the evaluation and in the recall service, so it imports no torch. Does not belong here: reading tables
(`steps/scoring.py`), the files of a bundle (`service/engine/channels.py`).
"""
