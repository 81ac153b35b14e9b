"""Experiments: runs with other settings beside the regular partitions, their comparison, and tuning."""
