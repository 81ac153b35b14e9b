"""Samples: labelled rows to train on, and the corpus for negatives. Both are converted to embedding indices for batches."""
