"""Reads Delta and Iceberg tables as sources (`format: delta`, `format: iceberg`) through deltalake and pyiceberg."""
