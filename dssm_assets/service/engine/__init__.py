"""Makes lists from an open bundle: users, items, channels, filters. Imports neither torch nor Dagster nor steps."""
