"""Tests of the rules and maths."""
