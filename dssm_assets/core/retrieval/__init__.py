"""Search for the items nearest to a user's vectors.

Belongs here: exact search, the approximate index of the bundle, several vectors per user (interests), checks and drift of
vectors. Does not belong here: the use of lists (`core/evaluation`, `service`), reading partitions.
"""
