"""Public data sets, converted to the three source tables: the demo's data and configuration."""
