"""Jobs: the daily tables, everything that is learned and scored for one evaluation day, publishing, and all of it in a row.

Belongs here: which assets run together. Does not belong here: what starts them (`schedules.py`, `landed.py`).
"""

import warnings
from collections.abc import Sequence
from typing import Any

import dagster as dg

from dssm_assets.defs.asset_factory import AssetRow
from dssm_assets.defs.scene import Scene

DAILY_TABLES = "daily_tables"
TRAIN_AND_EVALUATE = "train_and_evaluate"
PUBLISH = "publish"
DAILY_CHAIN = "daily_chain"

_SERVING = "serving"

# The chain holds assets of both backfill policies on purpose: it is run for one day at a time.
warnings.filterwarnings("ignore", message=rf"Asset job \w*{DAILY_CHAIN} materializes assets with varying BackfillPolicies")
_DESCRIPTIONS = {
    DAILY_TABLES: "Source to samples, once per day; takes a range of days.",
    TRAIN_AND_EVALUATE: "Window to hit rate, for one evaluation day per run. Its window must be there: daily_tables first.",
    PUBLISH: "The bundle that recall answers from, of a day whose gate has passed.",
    DAILY_CHAIN: "One day from its source tables to the published bundle, in one run: what the schedule and the sensor start. "
    "The gate stands before the bundle. For many days at once: daily_tables over the range, then train_and_evaluate per day.",
}


def jobs_for(rows: Sequence[AssetRow], scene: Scene) -> dict[str, Any]:
    """Returns plain name -> job: a range-capable one over daily tables, one per date over the window, one that publishes,
    and the chain of all three."""
    return {
        job: dg.define_asset_job(
            scene.name(job),
            selection=dg.AssetSelection.assets(
                *(scene.key(name) for name in names_of(rows, job) or [row.name for row in rows])
            ),
            description=description,
            tags=scene.tags,
        )
        for job, description in _DESCRIPTIONS.items()
    }


def names_of(rows: Sequence[AssetRow], job: str) -> list[str]:
    """Returns the assets of a job whose runs are all of one kind, in the order of the table; none for any other name."""
    if job == DAILY_TABLES:
        return [row.name for row in rows if not row.is_windowed]
    is_published = {TRAIN_AND_EVALUATE: False, PUBLISH: True}
    return [row.name for row in rows if row.is_windowed and is_published.get(job) is (row.group == _SERVING)]
