"""Programs that a deployment runs: run launchers for dagster.yaml, and who owns a run."""
