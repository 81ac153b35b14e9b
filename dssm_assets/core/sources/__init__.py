"""Source tables: the user's own users, items and behaviour, brought to the canonical tables. Pure functions on Arrow."""
