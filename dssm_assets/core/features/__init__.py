"""Feature generation: definitions in fg.json become columns, for a table of millions of rows and for one request alike.

Everything here is a pure function on Arrow tables: no files, no clock, no randomness. An encoded category is the
64-bit hash of its text, an encoded number a float32.

Belongs here: the feature types, how they read their inputs, and the buckets that definitions alone decide. Does not
belong here: statistics of a window and the embedding indices that follow from them (`core/statistics`); user and item
statistics that features read as inputs (`core/features_raw`).
"""
