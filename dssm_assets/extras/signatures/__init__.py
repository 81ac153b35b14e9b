"""Bundles signed by key: only who has the key publishes served bundles."""
