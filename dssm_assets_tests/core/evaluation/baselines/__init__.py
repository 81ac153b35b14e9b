"""Tests of the baselines on worlds small enough to rank by hand."""
