"""`dssm_assets.StoredTables`: passes stored tables to assets of other projects by parameter."""
