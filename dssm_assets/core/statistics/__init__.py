"""Statistics of feature values over a window, and what follows: value counts -> bins and vocabularies -> the feature configuration ->
embedding indices.

Belongs here: counting encoded values, and deciding and applying the rules that turn them into embedding indices. Does not belong here: the
values themselves, and buckets that a feature's definition alone decides (`core/features`).
"""
