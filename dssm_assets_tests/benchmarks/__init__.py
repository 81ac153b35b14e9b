"""Benchmarks: run by hand, each one command; the tests beside them run them tiny."""
