"""Tests of the feature operators, one file each."""
