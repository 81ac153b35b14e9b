"""Tests of the search space and the report of a study."""
