"""Runs started from this process: a range of days of the daily tables, or one run per evaluation day.

Belongs here: turning names and days into Dagster runs on an instance. Does not belong here: what is run.
"""

from collections.abc import Sequence

import dagster as dg
from dagster._core.storage.tags import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG

QUIET_CONSOLE = {"loggers": {"console": {"config": {"log_level": "ERROR"}}}}


def run_range(defs: dg.Definitions, instance: dg.DagsterInstance, names: Sequence[str], days: Sequence[str]) -> None:
    """Materializes daily assets over consecutive days in one run.

    Raises:
        Exception: whatever the failing asset raised.
    """
    job = defs.resolve_implicit_global_asset_job_def()
    job.execute_in_process(
        instance=instance,
        run_config=QUIET_CONSOLE,
        asset_selection=[dg.AssetKey(name) for name in names],
        tags={ASSET_PARTITION_RANGE_START_TAG: days[0], ASSET_PARTITION_RANGE_END_TAG: days[-1]},
    )


def run_day(defs: dg.Definitions, instance: dg.DagsterInstance, names: Sequence[str], ds: str) -> None:
    """Materializes assets of one day in one run.

    Raises:
        Exception: whatever the failing asset raised.
    """
    job = defs.resolve_implicit_global_asset_job_def()
    job.execute_in_process(
        instance=instance,
        run_config=QUIET_CONSOLE,
        asset_selection=[dg.AssetKey(name) for name in names],
        partition_key=ds,
    )
