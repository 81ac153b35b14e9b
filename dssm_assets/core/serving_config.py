"""The section `serving` of the configuration: what is shipped of a day, and how much of what was shipped is kept.

Belongs here: its keys. Does not belong here: building the index (`retrieval/index.py`) and publishing
(`storage/bundle_store.py`).
"""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field, model_validator

from dssm_assets.core.section import Section


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
    flat_up_to: int = Field(
        default=300_000, ge=0, description="auto: up to so many items every item is compared; no index is faster there."
    )
    hnsw_up_to: int = Field(default=1_000_000, ge=0, description="auto: up to so many items the index is HNSW, above them IVF.")
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
        if self.hnsw_up_to < self.flat_up_to:
            raise ValueError(f"hnsw_up_to {self.hnsw_up_to} is less than flat_up_to {self.flat_up_to}")
        return self
