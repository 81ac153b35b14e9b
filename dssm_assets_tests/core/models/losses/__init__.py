"""Tests of the losses, their masks and corrections."""
