"""Tests of the source tables' normalisation."""
