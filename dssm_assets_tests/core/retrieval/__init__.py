"""Tests of the search for the nearest items."""
