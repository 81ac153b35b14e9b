"""Everything that knows Dagster: assets, checks, jobs, partitions, resources, metadata."""
