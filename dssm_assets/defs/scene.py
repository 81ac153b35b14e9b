"""A scene: one configuration and the names that its assets, jobs and pools have in a code location.

A code location with one scene names them plainly (`sample`, `daily_tables`); one with several puts the scene's name before
each (`shop/sample`, `shop_daily_tables`).

Belongs here: names and partitions of a scene. Does not belong here: the definitions themselves.
"""

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import dagster as dg

from dssm_assets.core.config.pipeline import Calendar
from dssm_assets.defs.spark_runs import Launch, spark_submit
from dssm_assets.storage.config_file import LoadedConfig

if TYPE_CHECKING:
    from dssm_assets.steps.workspace import Workspace


SPARE_DAYS = 30
"""So many days after the calendar's end stay in plots, and so long may a backfill take: Dagster looks for its days as of the
moment it was asked for, with the offset of the code location's last start."""


def daily_partitions(calendar: Calendar, today: dt.date | None = None) -> dg.DailyPartitionsDefinition:
    """Returns the days from the calendar's start to its end (or up to yesterday), both included.

    Args:
        calendar: first and last day, and the time zone in which days begin.
        today: the date in that zone; None for the clock's.
    """
    if calendar.end is None:
        return dg.DailyPartitionsDefinition(start_date=calendar.start.isoformat(), timezone=calendar.timezone)
    return dg.DailyPartitionsDefinition(
        start_date=calendar.start.isoformat(),
        end_date=(calendar.end + dt.timedelta(days=1)).isoformat(),
        timezone=calendar.timezone,
        end_offset=-_days_to_hide(calendar.end, today or today_in(calendar.timezone)),
    )


def today_in(timezone: str) -> dt.date:
    """Returns the date that the clock shows in a time zone."""
    return dt.datetime.now(ZoneInfo(timezone)).date()


def _days_to_hide(last: dt.date, today: dt.date) -> int:
    """Returns how many of the days that have ended since the last one Dagster need not know.

    The end alone bounds the partitions. But the UI draws its plots over the latest 120 days, and Dagster counts those back from
    the clock, past the end: without the offset a calendar that ended long ago has empty plots.
    """
    return max(0, (today - last).days - 1 - SPARE_DAYS)


SCENE_TAG = "dssm/scene"


@dataclass(frozen=True)
class Scene:
    """One configuration in a code location.

    Attributes:
        loaded: its configuration.
        prefix: what stands before its names; "" where it is the only scene.
        launch: runs the jobs of its assets with `engine: spark`.
    """

    loaded: LoadedConfig
    prefix: str = ""
    launch: Launch = spark_submit

    @cached_property
    def daily(self) -> dg.DailyPartitionsDefinition:
        """Returns the days of the scene, the partitions of all of its assets."""
        return daily_partitions(self.loaded.config.calendar)

    @property
    def tags(self) -> dict[str, str]:
        """Returns the tags of its assets and runs."""
        return {SCENE_TAG: self.loaded.config.name}

    def key(self, asset: str) -> dg.AssetKey:
        """Returns the key of an asset."""
        return dg.AssetKey([self.prefix, asset] if self.prefix else [asset])

    def name(self, plain: str) -> str:
        """Returns the name of a group, a job, a schedule, a sensor, or a pool that is the scene's alone."""
        return f"{self.prefix}_{plain}" if self.prefix else plain

    def op(self, asset: str) -> str:
        """Returns the name of an asset's op: where run configuration speaks of it."""
        return f"{self.prefix}__{asset}" if self.prefix else asset

    def workspace(self, log: Callable[[str], None]) -> "Workspace":
        """Returns the workspace that the scene's steps work in.

        Raises:
            FeatureSpecError: the feature definitions are faulty: no step works on those, whether it reads them or not.
        """
        from dssm_assets.steps.workspace import open_workspace

        self.loaded.check_features()
        return open_workspace(self.loaded, log=log)
