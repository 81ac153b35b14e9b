"""Exports sampling weights and positive pairs as text tables for other trainers."""
