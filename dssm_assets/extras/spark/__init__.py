"""Computes daily tables on a Spark cluster."""
