"""Daily tables on a Spark cluster."""
