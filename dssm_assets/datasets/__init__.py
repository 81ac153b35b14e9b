"""Public data sets as the three source tables: the demo's, and its configuration."""
