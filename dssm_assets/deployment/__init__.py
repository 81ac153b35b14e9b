"""Code for deployments: run launchers for dagster.yaml, and the record of the process that works on a run."""
