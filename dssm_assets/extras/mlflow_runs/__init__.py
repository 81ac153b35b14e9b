"""Logs fits and hit rates as MLflow runs, in addition to Dagster's records."""
