"""Removing what is no longer needed: old partitions, replaced files, files of killed runs."""
