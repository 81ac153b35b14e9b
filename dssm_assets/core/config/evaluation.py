"""The sections `evaluation`, `gate` and `serving` of the configuration: how a model is scored, judged and served."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from enum import StrEnum
from typing import Annotated, Final, Literal, TypeVar

from pydantic import Field, field_validator, model_validator

from dssm_assets.core.config.section import Ascending, Names, Section, repeated_names
from dssm_assets.core.config.service_limits import ServiceLimits
from dssm_assets.core.names import BASELINES, Scope, extra_baselines

USER_SIDE: Final = "user:"
ACTIVITY_EDGES: Final = (10, 30, 100)
"""Positive events in the window at which the next activity segment begins, by default."""

_Name = TypeVar("_Name", bound=str)


def _check_names(what: str, given: list[_Name], known: Collection[str]) -> list[_Name]:
    unknown = [name for name in given if name not in known]
    if unknown:
        raise ValueError(f"{what} must be of {', '.join(known)}, got {', '.join(unknown)}")
    if repeated_names(given):
        raise ValueError(f"{what} must be distinct, got {', '.join(given)}")
    return given


class SegmentKind(StrEnum):
    """What a segment groups by."""

    ACTIVITY = "activity"
    """Users by their positive events in the window."""
    TENURE = "tenure"
    """Users with a positive event before the evaluation day (returning) and without (new)."""
    ITEM_POPULARITY = "item_popularity"
    """Items to find, not users: by the positive events of the item in the window."""
    USER_COLUMN = "a column of user_table"


class Segment(Section):
    """One way to split the evaluation: every value gets a row in the table and in the chart of segments."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$", description="Its name; hit_rate_detail has the column segment_<name>.")
    by: str = Field(
        description="activity (positive events in the window), tenure, item_popularity, or a column of user_table the day "
        "before. Write `user:` before a column that has one of those three names."
    )
    edges: Annotated[list[float], Ascending] | None = Field(
        default=None, min_length=1, max_length=100, description="Cuts [a, b) of numbers, or of activity (default 10, 30, 100)."
    )

    @property
    def kind(self) -> SegmentKind:
        return SegmentKind(self.by) if self.by in _NAMED else SegmentKind.USER_COLUMN

    @property
    def user_column(self) -> str:
        return self.by.removeprefix(USER_SIDE)

    @property
    def activity_edges(self) -> Sequence[int]:
        return ACTIVITY_EDGES if self.edges is None else [round(edge) for edge in self.edges]

    @model_validator(mode="after")
    def _fits(self) -> Segment:
        if not self.user_column:
            raise ValueError("by needs a value: activity, tenure, item_popularity or a column of user_table")
        if self.edges is not None and self.kind not in (SegmentKind.USER_COLUMN, SegmentKind.ACTIVITY):
            raise ValueError(f"edges cut activity or a numeric column of user_table, {self.by} is not one")
        is_whole = all(edge == round(edge) and edge >= 1 for edge in self.edges or ())
        if self.kind is SegmentKind.ACTIVITY and not is_whole:
            raise ValueError("edges of activity are whole numbers of events, 1 or more")
        return self


_NAMED: Final = frozenset(kind.value for kind in SegmentKind if kind is not SegmentKind.USER_COLUMN)


class Takes(Section):
    """What counts as taken, for the rates of what was shown."""

    events: Names = Field(min_length=1, max_length=100, description="Events of the funnel that are takes.")
    hours: float = Field(default=24.0, gt=0, le=24 * 366, description="Hours after the answer in which a take counts.")


class Evaluation(Section):
    """How a day is scored."""

    k: Annotated[list[Annotated[int, Field(ge=1, le=10_000)]], Ascending] = Field(
        default=[10, 50, 100, 200], min_length=1, max_length=20, description="Cut-offs of lists; the largest is the headline's."
    )
    span_days: int = Field(
        default=1,
        ge=1,
        le=366,
        description="Days with the interactions to be found: the evaluation day and later days; above 1 for a log with few "
        "events a day. Until the last day is stored, the evaluation day is skipped.",
    )
    bootstrap_samples: int = Field(default=1000, ge=100, le=100_000, description="Resamples of users for the 95% intervals.")
    recent: Annotated[list[Annotated[float, Field(gt=0, le=100_000)]], Ascending] = Field(
        default=[1, 3, 6, 12, 24, 72, 168, 720, 2160],
        min_length=1,
        max_length=20,
        description="Half-lives of recent popularity in hours, ascending. The best one on the last days before "
        "the evaluation day is used.",
    )
    extra_baselines: list[str] = Field(
        default=[], description="Further baselines to fit: als (pip install 'dssm-assets[als]') or a plug-in's."
    )
    segments: list[Segment] = Field(
        default=[Segment(name="activity", by="activity")], max_length=8, description="Segments by which hit rates are shown."
    )
    max_users: int | None = Field(
        default=None, ge=1, le=1_000_000_000, description="Most users to score, sampled by a hash of their ids (default: all)."
    )
    num_processes: int = Field(default=1, ge=1, le=1024, description="Processes for vectors and hits. Results do not change.")
    show_people: bool = Field(
        default=True, description="The report shows five people with their ids; reports stay in Dagster's log of runs."
    )
    shown: Takes | None = Field(
        default=None,
        description="Rates of what serving.shown keeps: an item is taken by one of `events` within `hours` (24) of the answer "
        "(default: none).",
    )

    @field_validator("extra_baselines")
    @classmethod
    def _are_extras(cls, value: list[str]) -> list[str]:
        return _check_names("extra baselines", value, extra_baselines())

    @field_validator("segments")
    @classmethod
    def _named_once(cls, value: list[Segment]) -> list[Segment]:
        if twice := repeated_names(segment.name for segment in value):
            raise ValueError(f"segment names must be distinct, repeated: {twice}")
        return value


class Explore(Section):
    """Items for readers: on the page of `dssm-assets explore`, and in the report."""

    item_columns: Names = Field(
        default=[],
        max_length=5,
        description="Columns of item_table that make an item's title (default: those that look like names).",
    )


class GatedScorer(StrEnum):
    """What the gate judges."""

    SERVED = "served"
    """The list that is served: the merged list where channels are enabled, else the list of the vectors alone."""
    MODEL = "model"
    """The list of the vectors alone, for an application that asks for no channels."""


class Gate(Section):
    """The check between a trained model and the serving bundle. Intervals decide, not point estimates."""

    is_blocking: bool = Field(default=True, description="A failing gate keeps the day's serving bundle from being built.")
    scorer: GatedScorer = Field(default=GatedScorer.SERVED, description="What is judged.")
    baselines: list[str] | None = Field(
        default=None, description="Baselines to compare with: the day's best counts (default: all of the report; empty: none)."
    )
    scopes: list[Scope] = Field(default=[Scope.ALL], min_length=1, description="Scopes of the comparison.")
    baseline_margin: float = Field(
        default=0.0, ge=-1, le=1, description="Fails if the upper bound of its lead over the best baseline is below this."
    )
    min_pairs: int = Field(
        default=100, ge=0, le=10_000_000, description="With fewer warm pairs, or fewer users than a fifth of it, a day passes."
    )
    last_partitions: int = Field(
        default=7, ge=0, le=366, description="Earlier days against which a drop is measured (0: none)."
    )
    max_drop_frac: float = Field(
        default=0.3, ge=0, le=1, description="Fails if its ratio to the best baseline has surely dropped by more than this."
    )

    @property
    def min_users(self) -> int:
        return self.min_pairs // 5

    @field_validator("baselines")
    @classmethod
    def _known(cls, value: list[str] | None) -> list[str] | None:
        return None if value is None else _check_names("gate baselines", value, BASELINES)

    @field_validator("scopes")
    @classmethod
    def _distinct(cls, value: list[Scope]) -> list[Scope]:
        if Scope.COLD in value:
            raise ValueError("gate scopes cannot include cold: these baselines know no cold item")
        return _check_names("gate scopes", value, list(Scope))


class IndexKind(StrEnum):
    """How the items are searched."""

    AUTO = "auto"
    """flat up to 50,000 items, else ivf."""
    FLAT = "flat"
    """Exact: every item is compared."""
    HNSW = "hnsw"
    """A graph of near neighbours: best for short lists, slow to build, about 300 more bytes per item."""
    IVF = "ivf"
    """Clusters of near items, searched by codes of 4 bits: quick to build, one more byte per 4 dimensions."""


class Shown(Section):
    """The log of answered and shown items: parquet parts by day, written by `serve` and by `recall` in Python."""

    folder: str = Field(
        default="shown",
        min_length=1,
        description="Folder beside the bundles, in `serving/` of the storage, or a path or URL of its own.",
    )
    flush_seconds: float = Field(default=1.0, ge=0.1, le=60, description="Age at which rows are written: what a kill may lose.")
    keep_days: int = Field(default=30, ge=1, le=100_000, description="Days for which parts stay, back from today.")


class Variant(Section):
    """One group of people, and how their requests are answered."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$", description="Its name in answers, log and rates.")
    share: float = Field(gt=0, le=1, description="Fraction of the people.")
    channels: Literal["merged", "vectors"] | None = Field(default=None, description="Option of a request.")
    exclude_history: bool | None = Field(default=None, description="Option of a request.")
    k: int | None = Field(default=None, ge=1, le=10_000, description="Option of a request.")
    bundle: str | None = Field(default=None, min_length=1, description="A stored bundle's id, or previous.")


class Serving(Section):
    """What the serving bundle of a day contains, and the limits of the service."""

    index: IndexKind = Field(default=IndexKind.AUTO, description="How the items are searched.")
    min_index_recall: float = Field(
        default=0.98,
        ge=0,
        le=1,
        description="Fraction of the exact lists that the index must find at every evaluation.k; it searches as deep as "
        "needed. A bundle with a worse index is not published.",
    )
    keep_bundles: int = Field(
        default=3, ge=2, le=1000, description="Whole bundles that stay stored, with the served one; of deltas, the last two."
    )
    filters: Names = Field(
        default=[], max_length=100, description="Columns of item_table in the bundle: for conditions and `fields` of requests."
    )
    delta_minutes: int | None = Field(
        default=None, ge=1, le=1440, description="How often the sensor looks for changes, to publish a delta (default: off)."
    )
    blocked_items: str | None = Field(
        default=None, description="Path or URL of a text file, one item id per line: not shown. Read again when it changes."
    )
    stocked_items: str | None = Field(default=None, description="The same for items in stock: only these are shown. Not empty.")
    traces: bool = Field(
        default=False,
        description="Exports OpenTelemetry spans of requests, by OTEL_* environment variables (extra `telemetry`).",
    )
    shown: Shown | None = Field(default=None, description="`{}` keeps what was answered and shown (default: no log).")
    variants: list[Variant] = Field(
        default=[],
        max_length=20,
        description="Groups of people, the control first. Each has a `name`, a `share` (their sum is at most 1; others are in no "
        "variant), and what replaces the request's `channels`, `exclude_history` or `k`, or a `bundle`: `previous` or a stored id.",
    )
    experiment: str = Field(
        default="variants",
        pattern=r"^[A-Za-z0-9_.-]{1,100}$",
        description="Name of the experiment. `<scene>:<experiment>` is the seed of GrowthBook's hash (version 2) of the user id, or "
        "else of the request id; another name draws other groups.",
    )
    limits: ServiceLimits = Field(default=ServiceLimits(), description="Limits of `dssm-assets serve`.")

    @field_validator("variants")
    @classmethod
    def _share_people(cls, value: list[Variant]) -> list[Variant]:
        if twice := repeated_names(variant.name for variant in value):
            raise ValueError(f"variant names must be distinct, repeated: {twice}")
        if (total := sum(variant.share for variant in value)) > 1 + 1e-9:
            raise ValueError(f"shares of variants must sum to at most 1, got {total:g}")
        return value
