"""The table of contents: every asset group and the module that lists its assets, in the order of the pipeline.

Dependencies name what an asset reads unless another dependency stands behind it already: staleness travels along the
chain, and the graph stays readable. What was read, with digests, is in each partition's metadata (`inputs`).
"""

from dssm_assets.defs.asset_factory import AssetRow
from dssm_assets.defs.assets import config, evaluation, features_raw, fg, sample, serving, source, statistics, training, vectors

ASSET_TABLE: tuple[tuple[AssetRow, ...], ...] = (
    source.ROWS,
    features_raw.ROWS,
    fg.ROWS,
    sample.ROWS,
    statistics.ROWS,
    config.ROWS,
    training.ROWS,
    vectors.ROWS,
    evaluation.ROWS,
    serving.ROWS,
)


def all_rows() -> list[AssetRow]:
    """Returns every asset of the graph."""
    return [row for rows in ASSET_TABLE for row in rows]
