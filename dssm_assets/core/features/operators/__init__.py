"""The feature operators: one file per feature_type, each with its parameters and its column maths."""
