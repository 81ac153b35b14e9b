"""Tests of the channels and the merged list."""
