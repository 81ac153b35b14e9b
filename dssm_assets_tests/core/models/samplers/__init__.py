"""Tests of the samplers of negatives."""
