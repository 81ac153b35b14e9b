"""Bytes: where a partition lies and how it becomes visible. No dagster, no maths."""
