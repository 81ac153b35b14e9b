"""Checks of daily tables and evaluations for late days."""
