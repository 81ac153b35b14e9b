"""Searches the items nearest to a user's vectors.

Belongs here: exact search, the approximate index of the bundle, several vectors per user (interests), checks and drift of
vectors. Does not belong here: using the lists (`core/evaluation`, `service`), reading partitions.
"""
