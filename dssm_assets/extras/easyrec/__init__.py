"""Configurations of EasyRec and TorchEasyRec: read into this project's keys, and written for a day.

Belongs here: protocol buffers' text format, the keys of fields, and the report's words for a field without counterpart. Does not
belong here: the meaning of the keys (`core/config`, `core/features`).
"""
