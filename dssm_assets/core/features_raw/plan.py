"""What the wide feature tables contain: the part of the configuration that shapes their columns.

Belongs here: the plan and its derivation from the root configuration. Does not belong here: computing anything.
"""

from __future__ import annotations

from dataclasses import dataclass

from dssm_assets.core.columns import FEATURE_DATE, USER_ID
from dssm_assets.core.config import PipelineConfig
from dssm_assets.core.features_raw import feature_names as names


@dataclass(frozen=True)
class FeaturePlan:
    """Shape of user_all_feature and item_all_feature.

    Attributes:
        funnel: events with columns of their own, widest first.
        statistic_days: windows, ascending.
        value_columns: behaviour columns that are summed.
        preference_columns: item attributes with a preference list per user.
        preference_top: entries kept per list.
        timezone: where days are counted.
        first_day: first day with data.
    """

    funnel: tuple[str, ...]
    statistic_days: tuple[int, ...]
    value_columns: tuple[str, ...]
    preference_columns: tuple[str, ...]
    preference_top: int
    timezone: str
    first_day: str

    @staticmethod
    def of(config: PipelineConfig) -> FeaturePlan:
        """Returns the plan that a configuration describes."""
        return FeaturePlan(
            funnel=tuple(config.events.funnel),
            statistic_days=tuple(config.raw_features.statistic_days),
            value_columns=tuple(config.tables.behavior.value_columns),
            preference_columns=tuple(config.raw_features.preference_columns),
            preference_top=config.raw_features.preference_top,
            timezone=config.calendar.timezone,
            first_day=config.calendar.start.isoformat(),
        )

    @property
    def steps(self) -> tuple[tuple[str, str], ...]:
        """Returns the neighbours of the funnel, (wider, narrower)."""
        return tuple(zip(self.funnel[:-1], self.funnel[1:], strict=True))

    def generated(self, entity: str) -> list[str]:
        """Returns the generated columns of an entity's wide table, in order, feature_date first."""
        windows = self.statistic_days
        counts = [names.event_count(event, days) for event in self.funnel for days in windows]
        ratios = [names.event_ratio(wide, narrow, days) for wide, narrow in self.steps for days in windows]
        distinct = [names.event_distinct(entity, event, days) for event in self.funnel for days in windows]
        sums = [
            names.event_sum(event, value, days) for event in self.funnel for value in self.value_columns for days in windows
        ]
        since = [names.DAYS_SINCE_FIRST_EVENT, names.DAYS_SINCE_LAST_EVENT]
        lists = [names.preference(name) for name in self.preference_columns] if entity == USER_ID else []
        return [FEATURE_DATE, *counts, *ratios, *distinct, *sums, *since, *lists]
