"""The step of each asset, without Dagster: it reads partitions, makes one call into core, and writes a partition."""
