"""Source tables: raw users, items and behaviour converted to the canonical tables. Pure functions on Arrow."""
