"""Imports configurations of EasyRec and TorchEasyRec as this project's keys, and exports a day's fit as one of theirs.

Belongs here: protocol buffers' text format, the keys of fields, and the reasons for a field without counterpart. Does not
belong here: the meaning of our keys (`core/config`, `core/features`).
"""
