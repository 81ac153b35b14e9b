"""The engine on a real standalone Spark cluster, which the tests start."""
