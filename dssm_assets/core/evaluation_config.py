"""The section `evaluation` of the configuration: what is scored, how it is cut into segments, how far back the trend goes.

Belongs here: its keys and what they demand of each other. Does not belong here: the other sections (`config.py`), how a
segment is computed (`evaluation/segments.py`).
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Final

from pydantic import Field, field_validator, model_validator

from dssm_assets.core.section import Section

USER_SIDE: Final = "user:"


class SegmentKind(StrEnum):
    """What a segment cuts by; the values but the last are what `by` may say beside the name of a column."""

    ACTIVITY = "activity"
    """Users by their positive events in the window."""
    TENURE = "tenure"
    """Users by whether they ever had a positive event before the evaluation day: new, returning."""
    ITEM_POPULARITY = "item_popularity"
    """The truth, not the users: by how often its items were taken in the window."""
    USER_COLUMN = "a column of user_table"


class Segment(Section):
    """One cut of the evaluation: every value gets a row in the table and in the chart of segments."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$", description="Its name in tables; hit_rate_detail has segment_<name>.")
    by: str = Field(
        description="activity, tenure, item_popularity, or a column of user_table as of the day before the evaluation day "
        "(with `user:` before it where the column has one of those names)."
    )
    edges: list[float] | None = Field(
        default=None, min_length=1, description="Cut points of a numeric user column; ranges are [a, b)."
    )

    @property
    def kind(self) -> SegmentKind:
        """Returns what is cut by."""
        return SegmentKind(self.by) if self.by in _NAMED else SegmentKind.USER_COLUMN

    @property
    def user_column(self) -> str:
        """Returns the column of user_table, for a segment of that kind."""
        return self.by.removeprefix(USER_SIDE)

    @model_validator(mode="after")
    def _fits(self) -> Segment:
        if not self.user_column:
            raise ValueError("by needs a value: activity, tenure, item_popularity or a column of user_table")
        if self.edges is None:
            return self
        if self.kind is not SegmentKind.USER_COLUMN:
            raise ValueError(f"edges cut a numeric column of user_table, and {self.by} is none (activity has segment_edges)")
        if not all(map(math.isfinite, self.edges)) or sorted(set(self.edges)) != self.edges:
            raise ValueError("edges must be numbers, ascending and distinct")
        return self


_NAMED: Final = frozenset(kind.value for kind in SegmentKind if kind is not SegmentKind.USER_COLUMN)


class Evaluation(Section):
    """What is scored and how."""

    k: list[int] = Field(default=[10, 50, 100, 200], min_length=1)
    bootstrap_samples: int = Field(default=1000, ge=100)
    recent_days: int = Field(default=7, ge=1, description="Window of the recent-popularity baseline.")
    cooccurrence_neighbors: int = Field(default=200, ge=1, description="Neighbours kept per item by item co-occurrence.")
    segments: list[Segment] = Field(
        default=[Segment(name="activity", by="activity")], max_length=8, description="Cuts by which hit rates are shown."
    )
    segment_edges: list[int] = Field(
        default=[10, 30, 100], description="Window positives at which a user moves to the next activity segment."
    )
    segment_values: int = Field(
        default=12, ge=1, le=100, description="Values of a user column that get a row of their own; the rest share one."
    )
    max_users: int | None = Field(
        default=None,
        ge=1,
        description="Users of the day that are scored at most, a sample by the hash of their ids (default: all of them). Exact "
        "scoring compares each with every item.",
    )
    num_processes: int = Field(
        default=1,
        ge=1,
        description="Processes that compute vectors and count hits, each a range of users or items at a time; nothing else changes.",
    )
    trend_partitions: int = Field(default=30, ge=1, le=366, description="Last evaluation days that the trend shows.")

    @field_validator("k")
    @classmethod
    def _ascending(cls, value: list[int]) -> list[int]:
        if any(k < 1 for k in value) or sorted(set(value)) != value:
            raise ValueError("k must be positive, ascending and distinct")
        return value

    @field_validator("segments")
    @classmethod
    def _named_once(cls, value: list[Segment]) -> list[Segment]:
        names = [segment.name for segment in value]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"segments are named twice: {', '.join(twice)}")
        return value
