"""All code that uses Dagster: assets, checks, jobs, partitions, resources, metadata."""
