"""Configuration of features: the sections raw_features and statistics, and the hash function of categories."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field, field_validator, model_validator

from dssm_assets.core.config.section import Section, check_distinct


class RawFeatures(Section):
    """Statistics, preferences and histories of users and items as of each day."""

    statistic_days: list[Annotated[int, Field(ge=1, le=3660)]] = Field(
        default=[1, 3, 7, 15, 30], min_length=1, max_length=30, description="Windows of counts and sums, in days."
    )
    preference_columns: list[str] = Field(
        default_factory=list, description="Item columns whose values are counted per user, as preferences."
    )
    preference_top: int = Field(
        default=50, ge=1, le=10_000, description="Most frequent values kept per user and preference column."
    )
    preference_days: int = Field(default=30, ge=1, le=3660, description="Window of preferences, in days.")
    history_columns: list[str] = Field(
        default_factory=list, description="Item columns stored with each item of the user history."
    )

    @field_validator("statistic_days")
    @classmethod
    def _ascending(cls, value: list[int]) -> list[int]:
        if sorted(set(value)) != value:
            raise ValueError("statistic_days must be ascending and distinct")
        return value

    @field_validator("preference_columns", "history_columns")
    @classmethod
    def _named_once(cls, value: list[str]) -> list[str]:
        return check_distinct(value)


class EmbeddingDimPolicy(StrEnum):
    """Formula for the width of an embedding of N distinct values (semantics.md section 5)."""

    EMB_SQRT4_STEP4 = "EMB_SQRT4_STEP4"
    EMB_SQRT4_STEP8 = "EMB_SQRT4_STEP8"
    EMB_LN_STEP4 = "EMB_LN_STEP4"
    EMB_LN_STEP8 = "EMB_LN_STEP8"


AS_IN_STATISTICS: Final = "As in statistics."


class FeatureStatistics(Section):
    """Keys of one feature that override those of the section; fg.json overrides both."""

    num_bins: int | None = Field(default=None, ge=2, le=1000, description=AS_IN_STATISTICS)
    embedding_dim_policy: EmbeddingDimPolicy | None = Field(default=None, description=AS_IN_STATISTICS)
    embedding_dim: int | None = Field(default=None, ge=1, le=4096, description="Width of the embedding.")
    max_vocabulary: int | None = Field(default=None, ge=1, lt=2**31 - 2, description=AS_IN_STATISTICS)
    min_count: int | None = Field(default=None, ge=1, le=1_000_000_000, description=AS_IN_STATISTICS)
    hash_ratio: int | None = Field(default=None, ge=1, le=1000, description=AS_IN_STATISTICS)
    hash_bucket_size: int | None = Field(default=None, ge=1, lt=2**31 - 2, description="Number of hash buckets.")
    drop_missing_frac: float | None = Field(default=None, gt=0, le=1, description=AS_IN_STATISTICS)
    keep: bool = Field(default=False, description="Keep the feature whatever its statistics are.")


class Statistics(Section):
    """Bins and vocabularies of features, and the feature configuration that follows from them."""

    num_bins: int = Field(default=10, ge=2, le=1000, description="Number of equal-frequency bins of a numeric feature.")
    embedding_dim_policy: EmbeddingDimPolicy = Field(
        default=EmbeddingDimPolicy.EMB_SQRT4_STEP4, description="Width of an embedding by its number of distinct values."
    )
    embedding_dim: dict[str, Annotated[int, Field(ge=1, le=4096)]] = Field(
        default_factory=dict, description="feature -> width, in place of the policy."
    )
    max_vocabulary: int = Field(
        default=2_000_000,
        ge=1,
        lt=2**31 - 2,
        description="Features with at most this many distinct values get an exact vocabulary, others hash buckets.",
    )
    min_count: int = Field(default=1, ge=1, le=1_000_000_000, description="Values with a lower count are out of vocabulary.")
    hash_ratio: int = Field(
        default=5, ge=1, le=1000, description="Above max_vocabulary, hash_bucket_size = distinct values * hash_ratio."
    )
    drop_missing_frac: float = Field(
        default=0.999, gt=0, le=1, description="A feature is dropped if a larger fraction of its rows is missing."
    )
    features: dict[str, FeatureStatistics] = Field(
        default_factory=dict, description="feature or embedding -> keys that override those of the section."
    )

    @model_validator(mode="after")
    def _one_width(self) -> Statistics:
        twice = sorted(name for name, own in self.features.items() if own.embedding_dim and name in self.embedding_dim)
        if twice:
            raise ValueError(f"both embedding_dim and features set the width of {', '.join(twice)}; set it once")
        return self

    def own_values(self, names: Iterable[str], key: str) -> dict[str, object]:
        """Returns name -> value of a key, for those of the names (features and embeddings) that set it."""
        found = {name: getattr(self.features[name], key) for name in names if name in self.features}
        if key == "embedding_dim":
            found |= {name: self.embedding_dim[name] for name in names if name in self.embedding_dim}
        return {name: value for name, value in found.items() if value not in (None, False)}

    def for_feature(self, names: Iterable[str]) -> Statistics:
        """Returns the section with the keys that its names (feature and embedding) override; the first name has priority."""
        found: dict[str, object] = {}
        for name in reversed(list(names)):
            own = self.features.get(name, FeatureStatistics())
            found |= {key: value for key, value in own.model_dump(exclude_none=True).items() if key in Statistics.model_fields}
        found.pop("embedding_dim", None)
        return self.model_copy(update=found)


class HashFunction(StrEnum):
    """Hash function of the texts of categories."""

    MURMUR = "murmur_hash64a"
    FARM = "farm_fingerprint64"
