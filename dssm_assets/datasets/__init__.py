"""Public data sets as the three source tables: the demo's data and configuration."""
