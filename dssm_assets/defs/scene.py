"""A scene: one configuration in a code location, with the names and partitions of its assets, jobs and pools.

With one scene, names are plain (`sample`, `daily_tables`). With several, each name starts with the scene's (`shop/sample`,
`shop_daily_tables`).
"""

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import dagster as dg

from dssm_assets.core.config.pipeline import Calendar
from dssm_assets.installed_extras import load_all
from dssm_assets.storage.config_file import LoadedConfig

if TYPE_CHECKING:
    from dssm_assets.steps.workspace import Workspace


Launch = Callable[[dg.AssetExecutionContext, LoadedConfig, Mapping[str, Any]], Sequence[Mapping[str, Any]]]
"""Runs a job on a cluster with the given Pipes extras. Waits for its end, and returns its custom messages."""
SCENE_TAG = "dssm/scene"
PARTITION_TAG = "dagster/partition"
RANGE_TAGS = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")
MADE_FOR_TAG = "dssm/made_for"
"""Tag of a run that was made because another run needs it. The value is the beginning of that run's id."""
SPARE_DAYS = 30
"""Days after the calendar's end that stay in the UI's plots. A backfill must not take longer: Dagster looks up its days as of the
time of the request, with the offset from the code location's last start."""


def daily_partitions(
    calendar: Calendar, today: dt.date | None = None, *, window: int = 0, span: int = 1
) -> dg.DailyPartitionsDefinition:
    """Returns the days from the calendar's start to its end (or up to yesterday), both included.

    The UI plots the latest 120 days, counted back from the current date, so an old calendar would have empty plots. To avoid
    this, the days since the calendar's end, except SPARE_DAYS, are set as end offset.

    Args:
        today: the date in the calendar's time zone. None: the current date.
        window: leaves out this many days at the start: the first day's window.
        span: leaves out the last span - 1 days, because the calendar does not cover their truth.
    """
    timezone, one_day = calendar.timezone, dt.timedelta(days=1)
    start, after = (calendar.start + window * one_day).isoformat(), span - 1
    if calendar.end is None:
        return dg.DailyPartitionsDefinition(start_date=start, timezone=timezone, end_offset=-after)
    end = calendar.end - after * one_day
    hidden = max(after, ((today or today_in(timezone)) - end).days - 1 - SPARE_DAYS)
    end_date = (end + one_day).isoformat()
    return dg.DailyPartitionsDefinition(start_date=start, end_date=end_date, timezone=timezone, end_offset=-hidden)


def name_days(days: Sequence[str]) -> str:
    """Writes a range of days: `2026-01-31`, or `2026-01-01 to 2026-01-31`."""
    return days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"


def today_in(timezone: str) -> dt.date:
    return dt.datetime.now(ZoneInfo(timezone)).date()


@dataclass(frozen=True)
class Scene:
    """One configuration in a code location.

    Attributes:
        prefix: prefix of its names, "" for the only scene.
        launch: runs the jobs of its assets if `engine: spark`. None: spark-submit.
        source_assets: source table -> asset of another project that makes the table.
    """

    loaded: LoadedConfig
    prefix: str = ""
    launch: Launch | None = None
    source_assets: Mapping[str, dg.AssetKey] = field(default_factory=dict)

    @cached_property
    def daily(self) -> dg.DailyPartitionsDefinition:
        return daily_partitions(self.loaded.config.calendar)

    @cached_property
    def windowed(self) -> dg.DailyPartitionsDefinition:
        config = self.loaded.config
        return daily_partitions(config.calendar, window=config.window.days, span=config.evaluation.span_days)

    @property
    def first_evaluation_day(self) -> dt.date:
        config = self.loaded.config
        return config.calendar.start + dt.timedelta(days=config.window.days)

    def last_day(self, *, is_windowed: bool) -> str | None:
        """Returns the last ended day (or evaluation day), at most the calendar's end, unlike Dagster. None before the first."""
        config = self.loaded.config
        first = self.first_evaluation_day if is_windowed else config.calendar.start
        last = today_in(config.calendar.timezone) - dt.timedelta(days=1)
        last = min(config.calendar.end or last, last) - dt.timedelta(days=config.evaluation.span_days - 1 if is_windowed else 0)
        return last.isoformat() if last >= first else None

    @cached_property
    def extra_attributes(self) -> dict[str, Any]:
        """Returns extras' further arguments for each asset. All assets of a scene must share these objects."""
        return {name: value for extra in load_all("attributes") for name, value in extra.asset_attributes(self).items()}

    @property
    def tags(self) -> dict[str, str]:
        return {SCENE_TAG: self.loaded.config.name}

    def key(self, asset: str) -> dg.AssetKey:
        return dg.AssetKey([self.prefix, asset] if self.prefix else [asset])

    def name(self, plain: str) -> str:
        """Prefixes the name of a group, job, schedule, sensor or pool of this scene."""
        return f"{self.prefix}_{plain}" if self.prefix else plain

    def op(self, asset: str) -> str:
        return f"{self.prefix}__{asset}" if self.prefix else asset

    def open_workspace(self, log: Callable[[str], None]) -> "Workspace":
        """Returns the workspace for the scene's steps.

        Raises:
            FeatureSpecError: the feature definitions are faulty. Then no step runs, even if it does not read them.
        """
        from dssm_assets.steps.workspace import open_workspace

        self.loaded.check_features()
        return open_workspace(self.loaded, log=log)
