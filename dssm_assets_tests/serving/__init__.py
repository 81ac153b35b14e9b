"""Tests of reading the serving bundle."""
