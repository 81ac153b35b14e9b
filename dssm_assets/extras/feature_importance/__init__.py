"""Measures how much each group of features adds to the hit rates: fits the towers again without the group."""
