"""The columns of the raw feature tables: their names, and the choice that the configuration makes."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Final

from dssm_assets.core.columns import FEATURE_DATE, USER_ID
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

window_count: Final = "count_{}d".format
"""Names the state column with the number of events in a window of some days."""
window_sum: Final = "{}_sum_{}d_e4".format
"""Names the state column with the sum of a value in a window, in units of 1/10,000."""
event_count: Final = "{}_count_{}d".format
"""Names the wide column with the number of one event in a window."""
event_sum: Final = "{}_{}_sum_{}d".format
"""Names the wide column with the sum of a value over one kind of event: event, value, days."""
event_ratio: Final = "{}_to_{}_ratio_{}d".format
"""Names the wide column with the count of the second event / the count of the first, its neighbour in the funnel."""
days_since_time: Final = "days_since_{}".format
"""Names the wide column with the days since a time of the source table."""
preference: Final = "{}_preference".format
"""Names the wide column with a user's preferred values of an item attribute."""


def event_distinct(entity: str, event: str, days: int) -> str:
    """Names the wide column with the number of a user's distinct items (or an item's users) with one event in a window."""
    return f"{event}_distinct_{'items' if entity == USER_ID else 'users'}_{days}d"
