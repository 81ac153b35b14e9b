"""Tests of the samples, the corpus of negatives and the training arrays."""
