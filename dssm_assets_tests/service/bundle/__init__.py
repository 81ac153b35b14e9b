"""Tests of what a serving bundle holds, on towers of many shapes."""
