"""Statistics of feature values over a window, and their consequences: value counts -> bins and vocabularies -> the feature
configuration -> embedding indices.

Belongs here: counting encoded values, and deciding and applying the rules that turn them into embedding indices. Does not
belong here: the values themselves and the buckets of definitions (`core/features`).
"""
