"""Tests of the asset graph and of what it tells Dagster."""
