"""Tests of the service: the bundle, the engine, HTTP, the commands."""
