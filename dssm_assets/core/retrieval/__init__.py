"""Search for the items nearest to a user's vectors.

Belongs here: exact search, the approximate index that is shipped, several vectors per user (interests), checks of vectors
and their drift. Does not belong here: the use of lists (`core/evaluation`, `service`), reading partitions.
"""
