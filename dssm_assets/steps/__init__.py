"""What each asset does, without Dagster: read partitions, make one call into core, write a partition."""
