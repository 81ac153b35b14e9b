"""The IO manager `dssm_assets.StoredTables`: passes stored tables to the parameters of other projects' assets."""
