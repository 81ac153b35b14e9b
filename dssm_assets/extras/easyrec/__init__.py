"""Imports configurations of EasyRec and TorchEasyRec, and exports a day's fit as a configuration of theirs.

Belongs here: protocol buffers' text format, the keys of fields, and the reasons for a field without counterpart. Does not
belong here: the meaning of our keys (`core/config`, `core/features`).
"""
