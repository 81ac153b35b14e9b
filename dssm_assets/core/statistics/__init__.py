"""Statistics of feature values over a window: value counts, then bins and vocabularies, then embedding indices.

Belongs here: counting encoded values, deciding how values become embedding indices, and converting them. Does not belong
here: computing the values, and buckets that need nothing but a feature's definition (`core/features`).
"""
