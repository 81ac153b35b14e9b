"""Tests of the poolings of the history."""
