"""dssm-assets: DSSM two-tower vector recall as Dagster software-defined assets.

The package reads like the pipeline: sources -> features_raw -> features (FG) -> samples -> statistics ->
feature config -> training -> vectors -> evaluation. `core` holds the rules and maths, `storage` the bytes, `defs`
everything that knows Dagster, `definitions` the table of contents.
"""
