"""The schedule of the daily chain: every day at a fixed time, the day before.

Belongs here: the tick. Does not belong here: the run that it asks for (`chain_runs.py`).
"""

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg

from dssm_assets.core.platform_config import Trigger
from dssm_assets.defs.asset_factory import AssetRow
from dssm_assets.defs.chain_runs import chain_run, run_of_day
from dssm_assets.defs.jobs import DAILY_CHAIN
from dssm_assets.defs.scene import Scene


def daily_schedule(scene: Scene, jobs: Mapping[str, Any], rows: Sequence[AssetRow]) -> dg.ScheduleDefinition:
    """Returns the schedule; it starts switched on where `platform.trigger` is `schedule`."""
    config = scene.loaded.config
    hour, minute = (int(part) for part in config.platform.schedule_at.split(":"))
    is_on = config.platform.trigger is Trigger.SCHEDULE

    @dg.schedule(
        name=scene.name("daily_chain_schedule"),
        job=jobs[DAILY_CHAIN],
        cron_schedule=f"{minute} {hour} * * *",
        execution_timezone=config.calendar.timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING if is_on else dg.DefaultScheduleStatus.STOPPED,
        description=f"Every day at {config.platform.schedule_at} ({config.calendar.timezone}): the chain of the day before.",
        tags=scene.tags,
    )
    def schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        tick = context.scheduled_execution_time.astimezone(ZoneInfo(config.calendar.timezone))
        day = tick.date() - dt.timedelta(days=1)
        ds = day.isoformat()
        if day < config.calendar.start:
            return dg.SkipReason(f"{ds} lies before the calendar's first day, {config.calendar.start}")
        if config.calendar.end is not None and day > config.calendar.end:
            return dg.SkipReason(f"the calendar ended on {config.calendar.end}: there is no day {ds}")
        if (run := run_of_day(context.instance, scene, ds)) is not None:
            return dg.SkipReason(f"{ds} has a run already: {run}")
        return chain_run(scene, rows, ds)

    return schedule
