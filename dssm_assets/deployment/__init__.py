"""Code that a deployment runs: run launchers for dagster.yaml, and the record of which process works on a run."""
