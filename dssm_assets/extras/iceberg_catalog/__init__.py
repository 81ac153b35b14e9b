"""Registers the stored tables in an Iceberg catalog, so that other engines can read them. No file is copied."""
