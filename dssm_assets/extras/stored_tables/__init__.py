"""`dssm_assets.StoredTables`: stored tables, handed to assets of other projects by parameter."""
