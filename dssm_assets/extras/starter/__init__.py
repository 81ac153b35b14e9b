"""A configuration from a team's own tables, and its validation: the commands init and validate."""
