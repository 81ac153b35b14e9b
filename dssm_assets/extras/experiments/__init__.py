"""Experiments: runs with other settings beside the regular partitions, their comparison, and the search for settings."""
