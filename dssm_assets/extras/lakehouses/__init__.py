"""Reads Delta and Iceberg tables as sources (`format: delta`, `format: iceberg`), with deltalake and pyiceberg."""
