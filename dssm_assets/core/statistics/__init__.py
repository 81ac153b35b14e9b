"""Statistics of feature values over a window: value counts, then bins and vocabularies, then embedding indices.

Belongs here: counting encoded values, and deciding and applying the rules from values to embedding indices. Does not belong
here: the values themselves, and buckets that follow from a feature's definition alone (`core/features`).
"""
