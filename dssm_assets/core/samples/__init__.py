"""Samples: labelled rows to train on, the corpus for negatives, and both as embedding indices for batches."""
