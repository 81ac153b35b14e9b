"""Reads a user's source tables: opens files, maps columns, and divides rows into days."""
