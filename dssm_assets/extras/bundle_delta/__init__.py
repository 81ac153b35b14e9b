"""Refreshes the served bundle with new events and items, without a fit. Has an asset, its job and its sensor."""
