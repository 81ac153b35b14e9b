"""Source tables: raw users, items and behavior converted to the canonical tables. Pure functions on Arrow."""
