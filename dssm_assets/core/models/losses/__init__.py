"""Losses as functions of embeddings, one per file, with the masks and corrections they share."""
