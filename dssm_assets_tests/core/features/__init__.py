"""Tests of feature generation, its statistics and the feature configuration."""
