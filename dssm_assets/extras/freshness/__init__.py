"""Checks whether daily tables and evaluations are stored before their deadline."""
