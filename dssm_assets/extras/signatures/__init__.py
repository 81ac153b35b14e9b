"""Signs bundles, so that services accept only bundles made by owners of the key."""
