"""The engine over HTTP: routes, keys, limits, metrics. Imports neither torch nor Dagster nor steps."""
