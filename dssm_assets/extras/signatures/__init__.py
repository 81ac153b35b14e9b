"""Bundles signed by key: what is served was published by who has the key."""
