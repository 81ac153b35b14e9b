"""The raw_features section: which statistics, preferences and histories are computed as of each day.

Belongs here: the keys and their bounds. Does not belong here: the computation (`core/features_raw`).
"""

from __future__ import annotations

from pydantic import Field, field_validator

from dssm_assets.core.section import Section


class RawFeatures(Section):
    """What features_raw computes beside counts."""

    statistic_days: list[int] = Field(default=[1, 3, 7, 15, 30], min_length=1, description="Windows of counts, in days.")
    preference_columns: list[str] = Field(default_factory=list, description="Item columns for which users get value -> count.")
    preference_top: int = Field(default=50, ge=1, description="Entries kept per user and preference.")
    preference_days: int = Field(default=30, ge=1, description="Days over which preferences are counted.")
    history_columns: list[str] = Field(
        default_factory=list, description="Item columns stored beside each item of the user history."
    )

    @field_validator("statistic_days")
    @classmethod
    def _ascending(cls, value: list[int]) -> list[int]:
        if any(day < 1 for day in value) or sorted(set(value)) != value:
            raise ValueError("statistic_days must be positive, ascending and distinct")
        return value
