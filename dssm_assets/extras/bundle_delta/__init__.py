"""New events and items of a day in a bundle that is served, without a fit: an asset, its job and its sensor."""
