"""Tests of the data set loaders."""
