"""Evaluates vectors that were made elsewhere."""
