"""Search for the items nearest to a user's vector."""
