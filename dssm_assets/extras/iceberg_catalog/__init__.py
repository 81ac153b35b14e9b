"""Tables of the store in an Iceberg catalog, where other engines read them: the catalog is brought up to date, files are not copied."""
