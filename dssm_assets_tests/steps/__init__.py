"""Tests of the steps: what each asset does, without Dagster."""
