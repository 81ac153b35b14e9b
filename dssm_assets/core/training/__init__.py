"""Fits the two towers, stores them and computes vectors with them."""
