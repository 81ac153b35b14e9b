"""The sections `evaluation`, `gate` and `serving` of the configuration: how a model is scored, judged and served."""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum
from typing import Annotated, Final, TypeVar

from pydantic import Field, ValidationInfo, field_validator, model_validator

from dssm_assets.core.config.section import Section, check_distinct
from dssm_assets.core.config.service_limits import ServiceLimits
from dssm_assets.core.evaluation.baselines.registry import BASELINES, extra_baselines
from dssm_assets.core.evaluation.scopes import Scope

USER_SIDE: Final = "user:"


_Name = TypeVar("_Name", bound=str)


def _check_names(what: str, given: list[_Name], known: Collection[str]) -> list[_Name]:
    """Returns the names as given.

    Raises:
        ValueError: one is not known, or repeated.
    """
    unknown = [name for name in given if name not in known]
    if unknown:
        raise ValueError(f"{what} must be of {', '.join(known)}, got {', '.join(unknown)}")
    if len(set(given)) != len(given):
        raise ValueError(f"{what} must be distinct, got {', '.join(given)}")
    return given


class SegmentKind(StrEnum):
    """What a segment groups by. Every value except the last is allowed in `by`, next to the name of a column."""

    ACTIVITY = "activity"
    """Users by their positive events in the window."""
    TENURE = "tenure"
    """Users with a positive event before the evaluation day (returning) and without (new)."""
    ITEM_POPULARITY = "item_popularity"
    """Items to find, not users: by the positive events of the item in the window."""
    USER_COLUMN = "a column of user_table"


class Segment(Section):
    """One way to split the evaluation: every value gets a row in the table and in the chart of segments."""

    name: str = Field(
        pattern=r"^[a-z][a-z0-9_]*$", description="Name of the segment; hit_rate_detail has the column segment_<name>."
    )
    by: str = Field(
        description="activity, tenure, item_popularity, or a column of user_table as of the day before the evaluation day. "
        "Write `user:` before a column that has one of those three names."
    )
    edges: list[float] | None = Field(
        default=None, min_length=1, max_length=100, description="Cut points of a numeric user column; ranges are [a, b)."
    )

    @property
    def kind(self) -> SegmentKind:
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
            raise ValueError(f"edges cut a numeric column of user_table, {self.by} is not one (activity has segment_edges)")
        if sorted(set(self.edges)) != self.edges:
            raise ValueError("edges must be ascending and distinct")
        return self


_NAMED: Final = frozenset(kind.value for kind in SegmentKind if kind is not SegmentKind.USER_COLUMN)


class Evaluation(Section):
    """How a day is scored."""

    k: list[Annotated[int, Field(ge=1, le=10_000)]] = Field(
        default=[10, 50, 100, 200],
        min_length=1,
        max_length=20,
        description="Cut-offs of the lists, ascending; the largest is the headline's.",
    )
    span_days: int = Field(
        default=1,
        ge=1,
        le=366,
        description="Days whose interactions are to be found: the evaluation day and the ones that follow it. Above 1 for a log with "
        "few events or users a day. Nothing of these days is trained on; an evaluation day whose last such day is not stored yet is skipped.",
    )
    bootstrap_samples: int = Field(
        default=1000, ge=100, le=100_000, description="Resamples of the users for the 95% intervals."
    )
    recent_days: int = Field(default=7, ge=1, le=3660, description="Days of the baseline recent popularity.")
    extra_baselines: list[str] = Field(
        default=[],
        description="Baselines that are fitted in addition: als, which has a library of its own (pip install 'dssm-assets[als]'), and those that "
        "plug-ins register (core/evaluation/baselines/registry.py).",
    )
    category_column: str | None = Field(
        default=None,
        description="Column of item_table with the categories by whose popularity the baseline ranks cold items. If unset: the column "
        "of texts, whole numbers or booleans that has about as many values as each value has items.",
    )
    segments: list[Segment] = Field(
        default=[Segment(name="activity", by="activity")], max_length=8, description="Segments by which hit rates are shown."
    )
    segment_edges: list[Annotated[int, Field(ge=1, le=1_000_000_000)]] = Field(
        default=[10, 30, 100],
        max_length=100,
        description="Positive events in the window at which the next activity segment begins.",
    )
    max_users: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000_000,
        description="Most users of the day to score, sampled by a hash of their ids (default: all). Exact scoring compares each "
        "user with every item.",
    )
    num_processes: int = Field(
        default=1,
        ge=1,
        le=1024,
        description="Processes that compute vectors and count hits, each on ranges of users or items. Results do not change.",
    )

    @field_validator("k", "segment_edges")
    @classmethod
    def _ascending(cls, value: list[int], info: ValidationInfo) -> list[int]:
        if sorted(set(value)) != value:
            raise ValueError(f"{info.field_name} must be ascending and distinct")
        return value

    @field_validator("extra_baselines")
    @classmethod
    def _are_extras(cls, value: list[str]) -> list[str]:
        return _check_names("extra baselines", value, extra_baselines())

    @field_validator("segments")
    @classmethod
    def _named_once(cls, value: list[Segment]) -> list[Segment]:
        names = [segment.name for segment in value]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"segment names must be distinct, repeated: {', '.join(twice)}")
        return value


class GatedScorer(StrEnum):
    """What the gate judges."""

    SERVED = "served"
    """The list that is served: the merged list where channels are enabled, else that of the vectors alone."""
    MODEL = "model"
    """The list of the vectors alone, for an application that asks for no channels."""


class Gate(Section):
    """The check between a trained model and the serving bundle. Intervals decide, not point estimates."""

    is_blocking: bool = Field(default=True, description="A failing gate keeps the day's serving bundle from being built.")
    scorer: GatedScorer = Field(default=GatedScorer.SERVED, description="What is judged.")
    baselines: list[str] | None = Field(
        default=None,
        description="It is compared with the best of these on the day (default: of all baselines of the report; empty: with none). "
        "Any of popularity, recent_popularity, item_cooccurrence, ease, als, own_history_window, own_history_all, and those that plug-ins register.",
    )
    scopes: list[Scope] = Field(
        default=[Scope.ALL],
        min_length=1,
        description="It is compared with the best baseline in each of these scopes. unseen: of items that users never "
        "interacted with before, in lists without the items of their histories.",
    )
    baseline_margin: float = Field(
        default=0.0,
        ge=-1,
        le=1,
        description="Fails if the upper bound of its hit rate minus that of the best baseline is below this; negative: it may be "
        "behind by this much.",
    )
    min_pairs: int = Field(
        default=100,
        ge=0,
        le=10_000_000,
        description="With fewer pairs of known user and known item to find, a day is not enough evidence, which is no failure.",
    )
    min_users: int = Field(default=20, ge=0, le=10_000_000, description="The same, by the number of these users.")
    last_partitions: int = Field(
        default=7,
        ge=0,
        le=366,
        description="Number of earlier days whose ratio to the best baseline is the reference for a drop (0: no comparison).",
    )
    max_drop_frac: float = Field(
        default=0.3,
        ge=0,
        le=1,
        description="Fails if it surely finds less than (1 - this) times as many hits, compared with the best baseline, as these "
        "partitions did.",
    )
    min_vector_cosine: float = Field(
        default=0.5,
        ge=-1,
        le=1,
        description="vector_drift warns if the mean cosine to the previous partition, after alignment, is below this.",
    )

    @field_validator("baselines")
    @classmethod
    def _known(cls, value: list[str] | None) -> list[str] | None:
        return None if value is None else _check_names("gate baselines", value, BASELINES)

    @field_validator("scopes")
    @classmethod
    def _distinct(cls, value: list[Scope]) -> list[Scope]:
        if Scope.COLD in value:
            raise ValueError("gate scopes must be others than cold, of which these baselines know no item")
        return _check_names("gate scopes", value, list(Scope))


class IndexKind(StrEnum):
    """How the items are searched."""

    AUTO = "auto"
    """By the size of the corpus."""
    FLAT = "flat"
    """Exact: every item is compared."""
    HNSW = "hnsw"
    """A graph of near neighbours: finds short lists best, slow to build, about 300 bytes per item in addition to its vector."""
    IVF = "ivf"
    """Clusters of near items, a few of which are searched by codes of 4 bits: quick to build, a byte per 4 dimensions in addition to the vector."""


class Serving(Section):
    """What the serving bundle of a day contains, and the limits of the service."""

    index: IndexKind = Field(default=IndexKind.AUTO, description="How the items are searched.")
    flat_max_items: int = Field(
        default=50_000,
        ge=0,
        le=2_147_483_647,
        description="auto: up to this many items every item is compared, above that the index is IVF.",
    )
    min_index_recall: float = Field(
        default=0.98,
        ge=0,
        le=1,
        description="Fraction of the exact lists that the index must find at every evaluation.k. It searches deeper until it "
        "does; a bundle whose index cannot is not published.",
    )
    keep_bundles: int = Field(
        default=3,
        ge=2,
        le=1000,
        description="Whole bundles that stay stored: the served one and earlier ones; of deltas, the served one and the one before it.",
    )
    filters: list[str] = Field(
        default=[],
        max_length=100,
        description="Columns of item_table that conditions of a request may name, and that lists may carry (`fields`), such as titles; the "
        "bundle holds them.",
    )
    delta_minutes: int | None = Field(
        default=None,
        ge=1,
        le=1440,
        description="How often the sensor looks whether sources have changed since the served bundle, to publish a delta "
        "(default: the sensor is off).",
    )
    blocked_items: str | None = Field(
        default=None,
        description="Path or fsspec URL of a text file, one item id per line: items that are not shown. `serve` reads it again "
        "when it changes.",
    )
    stocked_items: str | None = Field(
        default=None, description="The same of the only items that are shown, those in stock. It must not be empty."
    )
    traces: bool = Field(
        default=False,
        description="`serve` exports OpenTelemetry spans of requests, by OTLP over HTTP as OTEL_* environment variables say. Needs the extra "
        "`telemetry`.",
    )
    limits: ServiceLimits = Field(default=ServiceLimits(), description="Limits of `dssm-assets serve`.")

    @field_validator("filters")
    @classmethod
    def _named_once(cls, value: list[str]) -> list[str]:
        return check_distinct(value)
