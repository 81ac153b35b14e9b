"""Reads a user's source tables: files, columns, and the division into days."""
