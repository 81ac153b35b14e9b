"""Jobs: the daily tables, and everything that is learned and scored for one evaluation day.

Belongs here: which assets run together. Does not belong here: schedules and sensors.
"""

from collections.abc import Sequence

import dagster as dg

from dssm_assets.defs.asset_factory import AssetRow

DAILY_TABLES = "daily_tables"
TRAIN_AND_EVALUATE = "train_and_evaluate"
PUBLISH = "publish"

_SERVING = "serving"


def jobs_for(rows: Sequence[AssetRow]) -> list:  # type: ignore[type-arg]
    """Returns the jobs: a range-capable one over daily tables, one per date over the window, one that publishes."""
    daily, windowed, published = (
        dg.AssetSelection.assets(*names_of(rows, job)) for job in (DAILY_TABLES, TRAIN_AND_EVALUATE, PUBLISH)
    )
    return [
        dg.define_asset_job(
            DAILY_TABLES, selection=daily, description="Source to samples, once per day; takes a range of days."
        ),
        dg.define_asset_job(
            TRAIN_AND_EVALUATE, selection=windowed, description="Window to hit rate, for one evaluation day per run."
        ),
        dg.define_asset_job(
            PUBLISH, selection=published, description="The bundle that recall answers from, of a day whose gate has passed."
        ),
    ]


def names_of(rows: Sequence[AssetRow], job: str) -> list[str]:
    """Returns the assets of a job, in the order of the table; none for an unknown job."""
    if job == DAILY_TABLES:
        return [row.name for row in rows if not row.is_windowed]
    is_published = {TRAIN_AND_EVALUATE: False, PUBLISH: True}
    return [row.name for row in rows if row.is_windowed and is_published.get(job) is (row.group == _SERVING)]
