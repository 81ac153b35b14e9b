"""Checks whether the days of daily tables and evaluations are made in time."""
