"""Text operators' parts: normalising, tokenizing, overlap and proximity of terms."""
