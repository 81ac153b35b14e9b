"""Table engines: where Ibis expressions run. DuckDB in this process, Spark on a cluster."""
