"""Jobs: the daily tables, and everything that is learned and scored for one evaluation day.

Belongs here: which assets run together. Does not belong here: schedules and sensors.
"""

from collections.abc import Sequence

import dagster as dg

from dssm_assets.defs.asset_factory import AssetRow

DAILY_TABLES = "daily_tables"
TRAIN_AND_EVALUATE = "train_and_evaluate"


def jobs_for(rows: Sequence[AssetRow]) -> list:  # type: ignore[type-arg]
    """Returns the two jobs: one range-capable over daily tables, one per date over the window."""
    daily = dg.AssetSelection.assets(*(row.name for row in rows if not row.is_windowed))
    windowed = dg.AssetSelection.assets(*(row.name for row in rows if row.is_windowed))
    return [
        dg.define_asset_job(
            DAILY_TABLES, selection=daily, description="Source to samples, once per day; takes a range of days."
        ),
        dg.define_asset_job(
            TRAIN_AND_EVALUATE, selection=windowed, description="Window to hit rate, for one evaluation day per run."
        ),
    ]
