"""The asset table: every asset group and the module that lists its assets, in pipeline order.

An asset's dependencies are the assets that it reads, except those that another dependency already depends on: staleness
travels along the chain, and the graph stays readable. What a partition did read, with digests, is in its metadata (`inputs`).
"""

from dataclasses import replace

from dssm_assets.core.config.pipeline import PipelineConfig
from dssm_assets.defs.asset_row import AssetRow
from dssm_assets.defs.assets import config, evaluation, features_raw, fg, sample, serving, source, statistics, training, vectors
from dssm_assets.installed_extras import load_all

PUBLISHING_GROUP = "serving"
"""The group of the assets that only the job `publish` runs."""
ASSET_TABLE: dict[str, tuple[AssetRow, ...]] = {
    "source": source.ROWS,
    "features_raw": features_raw.ROWS,
    "fg": fg.ROWS,
    "sample": sample.ROWS,
    "statistics": statistics.ROWS,
    "config": config.ROWS,
    "training": training.ROWS,
    "vectors": vectors.ROWS,
    "evaluation": evaluation.ROWS,
    PUBLISHING_GROUP: serving.ROWS,
}
"""Group -> its assets."""
SAMPLE_GROUPS = frozenset({"sample", "statistics"})
"""Daily tables of these groups are needed for the days of a window; they read the features of the day before."""


def expiring_groups() -> dict[str, str]:
    """Returns asset -> group, of the assets whose old partitions `storage.keep_days` may remove."""
    return {row.name: row.group for row in all_rows() if not row.is_log and not row.never_expires}


def all_rows(config: PipelineConfig | None = None) -> list[AssetRow]:
    """Returns every asset, in pipeline order, those of extras last; on request are those that no job of a configuration runs."""
    of_extras = (row for extra in load_all("rows") for row in extra.ROWS)
    rows = [*(replace(row, group=group) for group, rows in ASSET_TABLE.items() for row in rows), *of_extras]
    wanted = {row.section for row in rows if row.section and getattr(config, row.section, None) is not None}
    return [replace(row, is_on_request=False) if row.section in wanted else row for row in rows]
