"""Arrays that the whole library shares: ragged rows, id look-up, rows of Arrow tables, hashes. No meaning of columns, no torch."""
