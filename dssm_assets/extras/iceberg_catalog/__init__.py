"""Lists the store's tables in an Iceberg catalog for other engines; no file is copied."""
