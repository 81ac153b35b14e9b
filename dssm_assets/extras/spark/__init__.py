"""Makes daily tables on a Spark cluster."""
