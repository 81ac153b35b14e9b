"""The asset table: every asset group and the module that lists its assets, in pipeline order.

An asset's dependencies are the assets that it reads, except those that another dependency already depends on: staleness
travels along the chain, and the graph stays readable. What a partition did read, with digests, is in its metadata (`inputs`).
"""

from dssm_assets.defs.asset_row import AssetRow
from dssm_assets.defs.assets import config, evaluation, features_raw, fg, sample, serving, source, statistics, training, vectors
from dssm_assets.installed_extras import load_all

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
PUBLISHING_GROUP = serving.GROUP
"""The group of the assets that only the job `publish` runs."""
SAMPLE_GROUPS = frozenset({sample.GROUP, statistics.GROUP})
"""Daily tables of these groups are needed for the days of a window; they read the features of the day before."""


def expiring_groups() -> dict[str, str]:
    """Returns asset -> group, of the assets whose old partitions `storage.keep_days` may remove."""
    return {row.name: row.group for row in all_rows() if not row.is_log and not row.never_expires}


def all_rows() -> list[AssetRow]:
    """Returns every asset, in pipeline order, those of extras last."""
    return [row for rows in (*ASSET_TABLE, *(extra.ROWS for extra in load_all("rows"))) for row in rows]
