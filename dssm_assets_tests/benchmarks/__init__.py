"""Benchmarks: each is one command to run by hand. The tests in this folder run them on tiny data."""
