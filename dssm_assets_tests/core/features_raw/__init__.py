"""Tests of the prerequisite feature workflow."""
