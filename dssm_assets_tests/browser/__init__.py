"""Tests of the UI: a real webserver and daemon, and a headless Chromium that clicks."""
