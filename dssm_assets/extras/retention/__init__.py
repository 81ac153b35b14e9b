"""Removes data that nobody needs or may keep: old partitions, replaced files, leftovers of killed runs, forgotten users."""
