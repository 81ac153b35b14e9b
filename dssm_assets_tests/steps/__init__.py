"""Tests of the steps: what each asset does, without Dagster."""

TRAIN_FILES = ("samples", "user_rows", "item_rows", "history", "users", "items")
"""The Arrow files of train_samples without hard negatives, in their order."""
