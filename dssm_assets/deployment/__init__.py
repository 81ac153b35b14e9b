"""Programs that a deployment runs: the Spark job, and a run launcher for dagster.yaml."""
