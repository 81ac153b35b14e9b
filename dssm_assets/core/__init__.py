"""Rules and maths of two-tower recall: no dagster, no files, no environment, no clock."""
