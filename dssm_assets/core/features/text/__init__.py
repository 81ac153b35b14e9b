"""Texts of features: normalization, tokenizers, overlap of terms."""
