"""The run of the daily chain for one day, as the schedule and the sensor both ask for it.

Belongs here: what is run for a day, and whether it was already. Does not belong here: when to ask.
"""

import datetime as dt
from collections.abc import Sequence

import dagster as dg

from dssm_assets.defs.asset_factory import AssetRow
from dssm_assets.defs.jobs import DAILY_CHAIN, DAILY_TABLES, names_of
from dssm_assets.defs.scene import Scene

PARTITION_TAG = "dagster/partition"
_STANDING = (
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.SUCCESS,
)


def chain_run(scene: Scene, rows: Sequence[AssetRow], ds: str) -> dg.RunRequest:
    """Returns the run of a day; a day whose window would reach before the calendar's first day gets its tables alone."""
    config = scene.loaded.config
    first = dt.date.fromisoformat(ds) - dt.timedelta(days=config.window.days)
    names = names_of(rows, DAILY_TABLES) if first < config.calendar.start else [row.name for row in rows]
    return dg.RunRequest(
        run_key=f"{scene.name(DAILY_CHAIN)}:{ds}",
        partition_key=ds,
        asset_selection=[scene.key(name) for name in names],
        tags=scene.tags,
    )


def run_of_day(instance: dg.DagsterInstance, scene: Scene, ds: str) -> str | None:
    """Returns the id of a run of the chain that a day has, queued, running or done; None where it has none."""
    found = instance.get_runs(
        dg.RunsFilter(job_name=scene.name(DAILY_CHAIN), tags={PARTITION_TAG: ds}, statuses=list(_STANDING)), limit=1
    )
    return found[0].run_id if found else None
