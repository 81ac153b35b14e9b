"""Signs bundles. A service with the public key accepts only bundles signed by an owner of the private key."""
