"""Converts the raw tables of users, items and behavior to the canonical tables. Pure functions on Arrow tables."""
