"""`dssm_assets.StoredTables`: what is stored, handed to assets of other projects by parameter."""
