"""Feature generation computes columns from the definitions in fg.json, for a table of millions of rows and for one request.

Everything here is a pure function on Arrow tables: no files, no clock, no randomness. An encoded category is the
64-bit hash of its text, an encoded number a float32.

Belongs here: the feature types, how they read their inputs, and buckets that need nothing but the definition. Does not belong
here: buckets and embedding indices that need counts of a window (`core/statistics`); the statistics of users and items that
features read as inputs (`core/features_raw`).
"""
