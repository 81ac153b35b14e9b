"""Delta and Iceberg tables as sources (`format: delta`, `format: iceberg`), by the packages deltalake and pyiceberg."""
