"""The section `evaluation` of the configuration: what is scored, how it is cut into segments, how far back the trend goes.

Belongs here: its keys and what they demand of each other. Does not belong here: the other sections (`config.py`), how a
segment is computed (`evaluation/segments.py`).
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Final

from pydantic import Field, field_validator, model_validator

from dssm_assets.core.config.section import Section

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


class GateBaseline(StrEnum):
    """The baselines that the model can be held against."""

    POPULARITY = "popularity"
    RECENT_POPULARITY = "recent_popularity"
    ITEM_COOCCURRENCE = "item_cooccurrence"
    OWN_HISTORY_WINDOW = "own_history_window"
    OWN_HISTORY_ALL = "own_history_all"


class Gate(Section):
    """What stands between a trained model and the serving bundle. The intervals decide, not the points."""

    is_blocking: bool = Field(default=True, description="A failing gate keeps the day's serving bundle from being made.")
    baselines: list[GateBaseline] = Field(
        default=[GateBaseline.POPULARITY, GateBaseline.RECENT_POPULARITY],
        description="The best of these on the day is what the model is held against (empty: against none).",
    )
    baseline_margin: float = Field(
        default=0.0,
        ge=-1,
        le=1,
        description="Fails if even the upper bound of hit_rate(model) - hit_rate(best baseline) is below this; "
        "negative: the model may be behind by so much.",
    )
    last_partitions: int = Field(
        default=7, ge=0, le=366, description="Stored partitions before the day whose mean rate is the measure (0: none)."
    )
    max_drop_frac: float = Field(
        default=0.3,
        ge=0,
        le=1,
        description="Fails if even the upper bound of the model's hit rate is below (1 - this) times that mean.",
    )
    min_vector_cosine: float = Field(
        default=0.5,
        ge=-1,
        le=1,
        description="vector_drift warns if the mean cosine to the partition before, after alignment, is below this.",
    )
    drift_ids: int = Field(
        default=10_000, ge=2, le=10_000_000, description="Common ids over which drift is measured; more are sampled."
    )

    @field_validator("baselines")
    @classmethod
    def _distinct(cls, value: list[GateBaseline]) -> list[GateBaseline]:
        if len(set(value)) != len(value):
            raise ValueError(f"gate baselines must be distinct, got {', '.join(value)}")
        return value


class IndexKind(StrEnum):
    """How the items are searched."""

    AUTO = "auto"
    """By the size of the corpus."""
    FLAT = "flat"
    """Exact: every item is compared."""
    HNSW = "hnsw"
    """A graph of near neighbours; the fastest to search, slow to build, about 300 bytes per item beside its vector."""
    IVF = "ivf"
    """Cells of near items, a few of which are searched; quick to build, nothing beside the vectors."""


class Serving(Section):
    """What the serving bundle of a day holds."""

    index: IndexKind = IndexKind.AUTO
    flat_max_items: int = Field(
        default=300_000, ge=0, description="auto: up to so many items every item is compared; no index is faster there."
    )
    hnsw_max_items: int = Field(
        default=1_000_000, ge=0, description="auto: up to so many items the index is HNSW, above them IVF."
    )
    min_index_recall: float = Field(
        default=0.98,
        ge=0,
        le=1,
        description="Share of the exact lists that the index must find at every evaluation.k: it searches deeper until it "
        "does, and a bundle whose index cannot is not published.",
    )
    recall_users: int = Field(default=1000, ge=1, le=1_000_000, description="Users whose lists measure the index's recall.")
    golden_rows: int = Field(
        default=256,
        ge=1,
        le=100_000,
        description="Users and items by which an exported tower is compared with the trained one.",
    )
    max_tower_difference: float = Field(
        default=1e-5,
        gt=0,
        le=1,
        description="Largest difference between an exported tower's vectors and the trained one's, entry by entry, as a "
        "share of the longest vector where that is longer than 1. A bundle beyond it is not published.",
    )
    keep_bundles: int = Field(
        default=3, ge=2, le=1000, description="Bundles that stay stored: the one that is served, the one before it, more."
    )

    @model_validator(mode="after")
    def _ascending(self) -> Serving:
        if self.hnsw_max_items < self.flat_max_items:
            raise ValueError(f"hnsw_max_items {self.hnsw_max_items} is less than flat_max_items {self.flat_max_items}")
        return self
