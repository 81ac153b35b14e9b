"""Fits and hit rates as MLflow runs, next to Dagster's records of them."""
