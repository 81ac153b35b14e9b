"""What a deployment's dagster.yaml names and Dagster does not bring."""
