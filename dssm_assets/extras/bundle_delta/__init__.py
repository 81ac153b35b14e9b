"""Refreshes the served bundle with new events and items, without a fit: an asset, its job and its sensor."""
