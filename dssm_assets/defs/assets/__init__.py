"""One module per asset group; each asset unpacks, makes one call into the library and reports."""
