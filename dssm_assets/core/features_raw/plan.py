"""The columns of the raw feature tables: which of them the configuration asks for, and their names."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Final

from dssm_assets.core.columns import FEATURE_DATE, ITEM_ID, USER_ID
from dssm_assets.core.config.pipeline import PipelineConfig


@dataclass(frozen=True)
class FeaturePlan:
    """The parts of the configuration that determine the columns of user_all_feature and item_all_feature.

    Attributes:
        first_day: first day with data.
        last_day: end of the year; clock changes are looked up until this day.
        user_times: time columns of user_table.
        item_times: time columns of item_table.
    """

    funnel: tuple[str, ...]
    statistic_days: tuple[int, ...]
    value_columns: tuple[str, ...]
    preference_columns: tuple[str, ...]
    timezone: str
    first_day: str
    last_day: str
    user_times: tuple[str, ...] = ()
    item_times: tuple[str, ...] = ()

    @staticmethod
    def from_config(config: PipelineConfig, ds: str) -> FeaturePlan:
        """Returns the plan for the tables of a day. All days of a year have the same plan."""
        return FeaturePlan(
            funnel=tuple(config.events.funnel),
            statistic_days=tuple(config.raw_features.statistic_days),
            value_columns=tuple(config.tables.behavior.value_columns),
            preference_columns=tuple(config.raw_features.preference_columns),
            timezone=config.calendar.timezone,
            first_day=config.calendar.start.isoformat(),
            last_day=f"{ds[:4]}-12-31",
            user_times=() if config.tables.user is None else tuple(config.tables.user.time_columns),
            item_times=() if config.tables.item is None else tuple(config.tables.item.time_columns),
        )

    @property
    def steps(self) -> tuple[tuple[str, str], ...]:
        return tuple(itertools.pairwise(self.funnel))

    def times(self, entity: str) -> tuple[str, ...]:
        return self.user_times if entity == USER_ID else self.item_times

    def generated(self, entity: str) -> list[str]:
        """Returns the generated columns of an entity's wide table, in order; feature_date is first."""
        windows = self.statistic_days
        counts = [event_count(event, days) for event in self.funnel for days in windows]
        ratios = [event_ratio(wide, narrow, days) for wide, narrow in self.steps for days in windows]
        distinct = [event_distinct(entity, event, days) for event in self.funnel for days in windows]
        sums = [event_sum(event, value, days) for event in self.funnel for value in self.value_columns for days in windows]
        since = [DAYS_SINCE_FIRST_EVENT, DAYS_SINCE_LAST_EVENT, *map(days_since_time, self.times(entity))]
        lists = [preference(name) for name in self.preference_columns] if entity == USER_ID else []
        return [FEATURE_DATE, *counts, *ratios, *distinct, *sums, *since, *lists]


DS: Final = "ds"
ATTRIBUTE: Final = "attribute"
LAST_DATE: Final = "last_date"
COUNT_TOTAL: Final = "count_total"
FIRST_EVENT_TIME_MS: Final = "first_event_time_ms"
LAST_EVENT_TIME_MS: Final = "last_event_time_ms"
DAYS_SINCE_FIRST_EVENT: Final = "days_since_first_event"
DAYS_SINCE_LAST_EVENT: Final = "days_since_last_event"

FIXED_POINT: Final = 10_000
"""Value sums are stored as integers in units of 1/10,000, so that adding and subtracting a day is exact."""

_COUNTERPARTS: Final = {USER_ID: "items", ITEM_ID: "users"}


def window_count(days: int) -> str:
    """Names the state column with the number of events in a window."""
    return f"count_{days}d"


def window_sum(value: str, days: int) -> str:
    """Names the state column with the sum of a value in a window, in units of 1/10,000."""
    return f"{value}_sum_{days}d_e4"


def event_count(event: str, days: int) -> str:
    """Names the wide column with the number of one event in a window."""
    return f"{event}_count_{days}d"


def event_sum(event: str, value: str, days: int) -> str:
    """Names the wide column with the sum of a value over one kind of event in a window."""
    return f"{event}_{value}_sum_{days}d"


def event_ratio(wide: str, narrow: str, days: int) -> str:
    """Names the wide column with the count of `narrow` / the count of `wide`, two neighbouring events of the funnel."""
    return f"{wide}_to_{narrow}_ratio_{days}d"


def event_distinct(entity: str, event: str, days: int) -> str:
    """Names the wide column with the number of a user's distinct items (or an item's users) with one event in a window."""
    return f"{event}_distinct_{_COUNTERPARTS[entity]}_{days}d"


def days_since_time(column: str) -> str:
    """Names the wide column with the days since a time of the source table."""
    return f"days_since_{column}"


def preference(attribute: str) -> str:
    """Names the wide column with a user's preferred values of an item attribute."""
    return f"{attribute}_preference"
