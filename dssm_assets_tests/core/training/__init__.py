"""Tests of fitting, storing and inference, on small generated worlds."""
