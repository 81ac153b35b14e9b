"""Samples: what is trained on, the corpus that negatives come from, and the index form that batches are cut from."""
