"""The feature operators. Each feature_type has a file with its keys and its computation, and a line in `registry.py`."""
