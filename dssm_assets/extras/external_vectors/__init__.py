"""Hit rates of vectors that were made elsewhere."""
