"""Tests of the scoring of recall."""
