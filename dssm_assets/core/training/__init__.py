"""Fitting the two towers, storing them and computing vectors with them."""
