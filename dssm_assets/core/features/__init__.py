"""Feature generation, the statistics of its values, and the feature configuration that follows from them.

Everything here is a pure function on Arrow tables: no files, no clock, no randomness. A categorical value is the
64-bit hash of its text and a number is a float32; bucket indices appear only in `bucketizer`.
"""
