"""Loaders that turn a public data set into the three source tables. One data set per module."""
