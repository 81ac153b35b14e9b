"""The section `gate` of the configuration: what a day's hit rate and its vectors must hold to be shipped.

Belongs here: its keys. Does not belong here: the verdicts (`evaluation/gate.py`, `retrieval/drift.py`).
"""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field, field_validator

from dssm_assets.core.section import Section


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
