"""Experiments: runs with other settings that leave the regular partitions unchanged; their comparison; tuning."""
