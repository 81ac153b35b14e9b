"""Signs bundles: services then accept only bundles by owners of the key."""
