"""Evaluation: the truth of a day, baselines, hit rates with their intervals, and the report."""
