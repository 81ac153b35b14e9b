"""Configuration of features: the sections raw_features and statistics, and the hash function of categories."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import Field

from dssm_assets.core.config.section import Ascending, Names, Section

PREFERENCE_TOP: Final = 50
"""Most frequent values per user and preference column."""
HASH_RATIO: Final = 5
"""Hash buckets per distinct value of a feature above max_vocabulary."""


class RawFeatures(Section):
    """Statistics, preferences and histories of users and items as of each day."""

    statistic_days: Annotated[list[Annotated[int, Field(ge=1, le=3660)]], Ascending] = Field(
        default=[1, 3, 7, 15, 30], min_length=1, max_length=30, description="Windows of counts and sums, in days."
    )
    preference_columns: Names = Field(default_factory=list, description="Item columns; a user's 50 top values are preferences.")
    preference_days: int = Field(default=30, ge=1, le=3660, description="Window of preferences, in days.")
    history_columns: Names = Field(default_factory=list, description="Item columns stored with each item of the user history.")


class EmbeddingDimPolicy(StrEnum):
    """Formula for the width of an embedding of N distinct values."""

    EMB_SQRT4_STEP4 = "EMB_SQRT4_STEP4"
    EMB_SQRT4_STEP8 = "EMB_SQRT4_STEP8"
    EMB_LN_STEP4 = "EMB_LN_STEP4"
    EMB_LN_STEP8 = "EMB_LN_STEP8"


AS_IN_STATISTICS: Final = "As in statistics."


class FeatureStatistics(Section):
    """Keys of one feature. They override the section's keys; fg.json overrides both."""

    num_bins: int | None = Field(default=None, ge=2, le=1000, description=AS_IN_STATISTICS)
    max_vocabulary: int | None = Field(default=None, ge=1, lt=2**31 - 2, description=AS_IN_STATISTICS)
    min_count: int | None = Field(default=None, ge=1, le=1_000_000_000, description=AS_IN_STATISTICS)
    hash_bucket_size: int | None = Field(default=None, ge=1, lt=2**31 - 2, description="Number of hash buckets.")
    keep: bool = Field(default=False, description="Keep the feature whatever its statistics are.")


class Statistics(Section):
    """Bins and vocabularies of features, and the feature configuration that follows from them."""

    num_bins: int = Field(default=10, ge=2, le=1000, description="Equal-frequency bins of a numeric feature.")
    embedding_dim_policy: EmbeddingDimPolicy = Field(
        default=EmbeddingDimPolicy.EMB_SQRT4_STEP4, description="Width of an embedding by its number of distinct values."
    )
    embedding_dim: dict[str, Annotated[int, Field(ge=1, le=4096)]] = Field(
        default_factory=dict, description="feature or embedding -> width, in place of the policy."
    )
    max_vocabulary: int = Field(
        default=2_000_000,
        ge=1,
        lt=2**31 - 2,
        description="With more distinct values: 5 hash buckets each, no exact vocabulary.",
    )
    min_count: int = Field(default=1, ge=1, le=1_000_000_000, description="Values with a lower count are out of vocabulary.")
    features: dict[str, FeatureStatistics] = Field(
        default_factory=dict, description="feature or embedding -> keys that override those of the section."
    )

    def own_values(self, names: Iterable[str], key: str) -> dict[str, Any]:
        """Returns name -> value of a key, for the named features and embeddings that set it."""
        if key == "embedding_dim":
            return {name: self.embedding_dim[name] for name in names if name in self.embedding_dim}
        found = {name: getattr(self.features[name], key) for name in names if name in self.features}
        return {name: value for name, value in found.items() if value not in (None, False)}


class HashFunction(StrEnum):
    """Hash function of the texts of categories."""

    MURMUR = "murmur_hash64a"
    FARM = "farm_fingerprint64"
