"""Tests of the towers, losses and samplers."""
