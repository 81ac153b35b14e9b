"""Checks that tell which daily tables and evaluations are late, day by day."""
