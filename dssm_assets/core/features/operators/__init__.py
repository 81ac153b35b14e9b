"""The feature operators: one file per feature_type with its keys and its computation, one line each in `registry.py`."""
