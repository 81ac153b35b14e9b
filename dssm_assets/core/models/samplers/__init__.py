"""Samplers of negatives, one per file. Each returns the probability with which it drew."""
