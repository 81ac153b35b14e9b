"""Removes old partitions, replaced files, leftovers of killed runs, and the rows of users who must be forgotten."""
