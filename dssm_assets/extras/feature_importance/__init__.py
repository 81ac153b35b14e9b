"""Measures the worth of each group of features on the validation days, by one fit without each."""
