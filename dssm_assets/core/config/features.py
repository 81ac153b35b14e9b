"""The raw_features section: which statistics, preferences and histories are computed as of each day.

Belongs here: the keys and their bounds. Does not belong here: the computation (`core/features_raw`).
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from pydantic import Field, field_validator, model_validator

from dssm_assets.core.config.section import Section


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


class EmbeddingDimPolicy(StrEnum):
    """How the width of an embedding follows from the distinct count N (semantics.md section 5)."""

    EMB_SQRT4_STEP4 = "EMB_SQRT4_STEP4"
    EMB_SQRT4_STEP8 = "EMB_SQRT4_STEP8"
    EMB_LN_STEP4 = "EMB_LN_STEP4"
    EMB_LN_STEP8 = "EMB_LN_STEP8"


class FeatureStatistics(Section):
    """What holds for one feature instead of the section's own keys; fg.json wins over both."""

    num_bins: int | None = Field(default=None, ge=2, le=1000)
    embedding_dim_policy: EmbeddingDimPolicy | None = None
    embedding_dim: int | None = Field(default=None, ge=1, le=4096)
    max_vocabulary: int | None = Field(default=None, ge=1)
    min_count: int | None = Field(default=None, ge=1)
    hash_ratio: int | None = Field(default=None, ge=1)
    hash_bucket_size: int | None = Field(default=None, ge=1, lt=2**31 - 2, description="Hash into so many buckets.")
    drop_missing_frac: float | None = Field(default=None, gt=0, le=1)
    keep: bool = Field(default=False, description="Never dropped for what the window holds.")


class Statistics(Section):
    """Binning, counts and the feature configuration that follows from them."""

    num_bins: int = Field(default=10, ge=2, le=1000, description="Equal-frequency bins of a numeric feature.")
    embedding_dim_policy: EmbeddingDimPolicy = EmbeddingDimPolicy.EMB_SQRT4_STEP4
    embedding_dim: dict[str, int] = Field(default_factory=dict, description="feature -> width, before the policy.")
    max_vocabulary: int = Field(
        default=2_000_000, ge=1, description="Up to this distinct count an exact vocabulary replaces hashing."
    )
    min_count: int = Field(default=1, ge=1, description="Values seen less often are out of vocabulary.")
    hash_ratio: int = Field(default=5, ge=1, description="hash_bucket_size = distinct count * ratio, above max_vocabulary.")
    drop_missing_frac: float = Field(
        default=0.999, gt=0, le=1, description="A feature missing in more rows than this is dropped."
    )
    features: dict[str, FeatureStatistics] = Field(
        default_factory=dict, description="feature or embedding -> keys that hold for it alone."
    )

    @model_validator(mode="after")
    def _one_width(self) -> Statistics:
        twice = sorted(name for name, own in self.features.items() if own.embedding_dim and name in self.embedding_dim)
        if twice:
            raise ValueError(f"embedding_dim and features give a width twice: {', '.join(twice)}")
        return self

    def given(self, names: Iterable[str], key: str) -> dict[str, object]:
        """Returns what each of the names is given for a key of its own."""
        found = {name: getattr(self.features[name], key) for name in names if name in self.features}
        if key == "embedding_dim":
            found |= {name: self.embedding_dim[name] for name in names if name in self.embedding_dim}
        return {name: value for name, value in found.items() if value not in (None, False)}

    def own(self, names: Iterable[str]) -> Statistics:
        """Returns the section with the keys of the first name that has any; features that share an embedding agree."""
        found: dict[str, object] = {}
        for name in reversed(list(names)):
            own = self.features.get(name, FeatureStatistics())
            found |= {key: value for key, value in own.model_dump(exclude_none=True).items() if key in Statistics.model_fields}
        found.pop("embedding_dim", None)
        return self.model_copy(update=found)


class HashFunction(StrEnum):
    """The hash of a text that categories are told apart by."""

    MURMUR = "murmur_hash64a"
    FARM = "farm_fingerprint64"
