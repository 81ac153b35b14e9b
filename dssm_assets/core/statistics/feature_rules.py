"""Decides from the window's statistics for each feature: whether it is kept, its bins or vocabulary, its width.

`FeatureRules` decides. `FeatureInfo` is the decision, as stored in feature_config.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field

from dssm_assets.core.columns import COUNT, FEATURE, VALUE_HASH
from dssm_assets.core.config.features import HASH_RATIO, EmbeddingDimPolicy, HashFunction, Statistics
from dssm_assets.core.errors import Fault, SchemaError
from dssm_assets.core.features.buckets import hash_bucket
from dssm_assets.core.features.expressions import Kind, Side
from dssm_assets.core.features.operators.base import FIRST_BUCKET
from dssm_assets.core.features.spec import Feature

MOST_MISSING_FRAC: Final = 0.999
"""A feature is dropped if it is missing in more than this fraction of the rows."""

Int64s = np.ndarray[Any, np.dtype[np.int64]]


class FeatureCounts:
    """Category counts of a window by feature. Features with one embedding can be counted together."""

    def __init__(self, counts: pa.Table) -> None:
        names = counts.column(FEATURE)
        self._rows = {name: counts.filter(pc.equal(names, name)) for name in names.unique().to_pylist()}
        self._no_rows = counts.slice(0, 0)

    def __contains__(self, feature: str) -> bool:
        return feature in self._rows

    def totals(self, features: Sequence[str]) -> tuple[int, int]:
        """Returns the number of the features' values, including missing values, and the number of missing values."""
        rows = self._rows_of(features)
        counts = rows.column(COUNT).to_numpy()
        return int(counts.sum()), int(counts[rows.column(VALUE_HASH).is_null().to_numpy()].sum())

    def by_frequency(self, features: Sequence[str]) -> tuple[Int64s, Int64s]:
        """Returns the distinct hashes of the features, and their counts: most frequent first, ties by hash."""
        rows = self._rows_of(features)
        known = rows.filter(rows.column(VALUE_HASH).is_valid())
        summed = known.group_by(VALUE_HASH, use_threads=False).aggregate([(COUNT, "sum")])
        ordered = summed.sort_by([(f"{COUNT}_sum", "descending"), (VALUE_HASH, "ascending")])
        return ordered.column(VALUE_HASH).to_numpy(), ordered.column(f"{COUNT}_sum").to_numpy()

    def _rows_of(self, features: Sequence[str]) -> pa.Table:
        return pa.concat_tables([self._no_rows, *(self._rows[name] for name in features if name in self._rows)])

    def vocabulary(self, features: Sequence[str], min_count: int) -> Int64s:
        """Returns the hashes that occur at least min_count times in the features, in the order of by_frequency."""
        hashes, counts = self.by_frequency(features)
        return hashes[counts >= min_count]


class FeatureInfo(BaseModel):
    """The decision for one kept feature, with exactly one rule: boundary, vocab_size, vocab_list, vocab_dict, num_buckets or
    hash_bucket_size.

    Attributes:
        side: the tower that reads it; "user" for a sub-feature of a sequence.
        is_multi: true if a row has a list of values; false for a sub-feature, with one value per element of the sequence.
        is_weighted: true if every value has a weight, else null.
        sequence_name: the sequence of a sub-feature, else null.
        sequence_length: sequence_length in the definition of a sub-feature (0: the model decides), else null.
        embedding_name: features with the same embedding_name share a table.
        embedding_dim: width of the table.
        num_embeddings: rows of the table; embedding indices are 0 .. num_embeddings - 1, and 0 is missing.
        boundary: cut points of bins [a, b); the index is 1 + the number of boundaries at or below the value.
        vocab_size: number of values in the counted vocabulary; index 1 is out of vocabulary, 2.. by frequency.
        counted_features: the vocabulary is counted over these features.
        min_count: values with a lower count are out of vocabulary.
        vocab_list: the vocabulary as defined; index 1 is out of vocabulary, 2.. in the order of the list.
        vocab_dict: the vocabulary, also from a vocab_file, with the bucket of each value; index 1 is out of vocabulary.
        num_buckets: the vocabulary is the integers 0 .. num_buckets - 1; index 1 is out of vocabulary, else 2 + value.
        hash_bucket_size: the index is 1 + hash modulo this size.
        default_bucketize_value: bucket of values out of the vocabulary; indices are then 1 + bucket.
        default_value: text with index 0, if the vocabulary lacks it and there is no default_bucketize_value.
        hash_function: hash function of the categories (null: murmur_hash64a).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    side: Side
    kind: Kind
    is_multi: bool
    is_weighted: bool | None = None
    sequence_name: str | None = None
    sequence_length: int | None = None
    embedding_name: str
    embedding_dim: int = Field(ge=1)
    num_embeddings: int = Field(ge=2)
    boundary: list[float] | None = None
    vocab_size: int | None = None
    counted_features: list[str] | None = None
    min_count: int | None = None
    vocab_list: list[str] | None = None
    num_buckets: int | None = None
    vocab_dict: dict[str, int] | None = None
    hash_bucket_size: int | None = None
    default_bucketize_value: int | None = None
    default_value: str | None = None
    hash_function: HashFunction | None = None

    def to_json(self) -> str:
        """Returns the JSON text, without null keys."""
        return self.model_dump_json(exclude_none=True)


@dataclass(frozen=True)
class Rule:
    """Converts the values of an embedding to indices: keys of FeatureInfo, rows of the table, distinct values, an explanation."""

    keys: Mapping[str, Any]
    num_embeddings: int
    distinct: int
    message: str


class FeatureRules:
    """Decides widths and vocabularies from the window's statistics; features of an embedding share them."""

    def __init__(
        self,
        features: Sequence[Feature],
        statistics: Statistics,
        binning: pa.Table,
        counts: FeatureCounts,
        function: HashFunction,
    ) -> None:
        self._statistics = statistics
        self._bins: dict[str, dict[str, Any]] = {row[FEATURE]: row for row in binning.to_pylist()}
        self._counts = counts
        # Written only if it is not the default; match_rows compares the rules of two days.
        self._hash: dict[str, Any] = {} if function is HashFunction.MURMUR else {"hash_function": function}
        self._groups: dict[str, list[Feature]] = {}
        for feature in features:
            self._groups.setdefault(feature.embedding_name, []).append(feature)
        self._rules: dict[str, Rule] = {}

    def check_statistics(self) -> None:
        """Raises a SchemaError that names every feature without statistics and every sub-feature without a vocabulary."""
        faults = []
        for feature in (feature for group in self._groups.values() for feature in group):
            where, is_number = f"feature {feature.name}", feature.kind is Kind.NUMERIC
            if feature.sequence is None:
                table, known = ("feature_binning", self._bins) if is_number else ("feature_counts", self._counts)
                if feature.name not in known:
                    faults.append(Fault(where, f"its rows in {table}", "none", f"recompute {table} with this fg.json"))
            elif not is_number and not self._counted_members(feature) and not self._defined(feature):
                remedy = "share the embedding_name of a feature of the samples, or give hash_bucket_size or vocab_list"
                got = f"no counts of embedding {feature.embedding_name}"
                faults.append(Fault(where, "a known vocabulary", got, remedy))
        SchemaError.raise_if(faults)

    def rule_for(self, feature: Feature) -> Rule:
        """Returns the rule for a feature's values. Features of one embedding share a rule."""
        if feature.kind is Kind.NUMERIC:
            return self._number_rule(feature)
        if feature.embedding_name not in self._rules:
            self._rules[feature.embedding_name] = self._category_rule(feature)
        return self._rules[feature.embedding_name]

    def drop_reason(self, feature: Feature) -> str | None:
        """Returns the reason for dropping a feature, None if it is kept."""
        if feature.depth > 1:
            return "each element of the sequence has several values, but towers read one value per element"
        if feature.sequence is not None and feature.kind is Kind.NUMERIC and not self._boundaries(feature):
            return "numbers of a sequence are not counted: give them boundaries"
        totals = self._totals(feature)
        return None if totals is None or self._setting(feature, "keep") else self._drop_reason_in_window(feature, *totals)

    def _drop_reason_in_window(self, feature: Feature, total: int, missing: int, distinct: int) -> str | None:
        if missing == total:
            return "it has no value in the window"
        if missing > MOST_MISSING_FRAC * total:
            return f"missing in {missing} of {total} rows, more than {MOST_MISSING_FRAC:.1%}"
        if distinct == 1 and missing == 0:
            return "constant: one value in the window, never missing"
        is_empty = self.rule_for(feature).keys.get("vocab_size") == 0
        return f"no value occurs {self._setting(feature, 'min_count')} times (min_count)" if is_empty else None

    def info_for(self, feature: Feature) -> FeatureInfo:
        """Returns the decision for a kept feature."""
        sequence, rule = feature.sequence, self.rule_for(feature)
        return FeatureInfo(
            side=feature.side,
            kind=feature.kind,
            is_multi=feature.depth > (0 if sequence is None else 1),
            is_weighted=feature.operator.is_weighted or None,
            sequence_name=sequence.sequence_name if sequence else None,
            sequence_length=sequence.sequence_length if sequence else None,
            embedding_name=feature.embedding_name,
            embedding_dim=self._dim(feature, rule),
            num_embeddings=rule.num_embeddings,
            **rule.keys,
        )

    def collision_frac_of(self, feature: Feature) -> float | None:
        """Returns the fraction of the window's distinct values that share a hash bucket. None: the feature has no hash buckets.

        Example: four values are in the buckets 0, 1, 1, 2. Two of them share a bucket: 0.5.
        """
        size = self.rule_for(feature).keys.get("hash_bucket_size") if feature.kind is Kind.CATEGORICAL else None
        if not size:
            return None
        hashes, _ = self._counts.by_frequency(self._counted_members(feature))
        _, counts = np.unique(hash_bucket(hashes, size), return_counts=True)
        return float(counts[counts > 1].sum() / counts.sum()) if len(hashes) else None

    def _totals(self, feature: Feature) -> tuple[int, int, int] | None:
        """Returns a feature's rows, rows without a value and distinct values. None if it was not counted."""
        if feature.kind is Kind.NUMERIC:
            row = self._bins.get(feature.name)
            return None if row is None else (row[COUNT], row["missing_count"], row["distinct_count"])
        is_own = feature.sequence is None or feature.name in self._counts
        names = [feature.name] if is_own else self._counted_members(feature)
        return (*self._counts.totals(names), len(self._counts.by_frequency(names)[0])) if names else None

    def _number_rule(self, feature: Feature) -> Rule:
        given = self._boundaries(feature)
        boundary = list(given or self._bins[feature.name]["boundaries"])
        origin = "as defined" if given else "of equal frequency"
        return Rule({"boundary": boundary}, len(boundary) + 2, len(boundary) + 1, f"{len(boundary) + 1} bins {origin}")

    def _category_rule(self, feature: Feature) -> Rule:
        names = self._counted_members(feature)
        hashes, counts = self._counts.by_frequency(names)
        defined = self._defined(feature)
        if defined:
            return self._defined_rule(feature, defined, len(hashes))
        configured, most = self._setting(feature, "hash_bucket_size"), self._setting(feature, "max_vocabulary")
        if configured or len(hashes) > most:
            size = configured or len(hashes) * HASH_RATIO
            reason = "as configured" if configured else f"above max_vocabulary {most}"
            message = f"{size} hash buckets: {len(hashes)} distinct values, {reason}"
            return Rule({"hash_bucket_size": size} | self._hash, size + 1, len(hashes), message)
        least = self._setting(feature, "min_count")
        size = int((counts >= least).sum())
        keys = {"vocab_size": size, "counted_features": names, "min_count": least} | self._hash
        return Rule(keys, size + 2, len(hashes), f"vocabulary of {size}, {len(hashes)} distinct values")

    def _defined_rule(self, feature: Feature, defined: Mapping[str, Any], distinct: int) -> Rule:
        keys = dict(defined) | self._hash
        if "hash_bucket_size" in defined:
            size = defined["hash_bucket_size"]
            return Rule(keys, size + 1, distinct or size, f"{size} hash buckets as defined")
        outside = defined.get("default_bucketize_value")
        if "num_buckets" in defined:
            size, last = defined["num_buckets"], defined["num_buckets"] - 1
        else:
            buckets = defined.get("vocab_dict") or range(len(defined["vocab_list"]))
            size, last = len(buckets), max(buckets.values() if isinstance(buckets, dict) else buckets)
            if outside is None and feature.operator.default_text:
                keys["default_value"] = feature.operator.default_text
        # With default_bucketize_value an index is 1 + bucket. Without it 0 and 1 are reserved; a dict's buckets leave them out.
        is_reserved = outside is None and "vocab_dict" in defined
        offset = 0 if is_reserved else FIRST_BUCKET if outside is None else 1
        return Rule(keys, max(last, outside or 0) + offset + 1, size, f"vocabulary of {size} as defined")

    def _defined(self, feature: Feature) -> dict[str, Any]:
        """Returns the vocabulary that fg.json defines for the embedding. `core/features/spec.py` has checked that its features agree."""
        for member in self._groups[feature.embedding_name]:
            operator: Any = member.operator
            keys = ("hash_bucket_size", "num_buckets", "vocab_list", "vocab_dict")
            defined = {key: value for key in keys if (value := getattr(operator, key, None)) is not None}
            if not defined and None not in (getattr(operator, "vocab_file", None), getattr(operator, "vocabulary", None)):
                defined = {"vocab_dict": dict(operator.vocabulary)}
            if defined and (bucket := getattr(operator, "default_bucketize_value", None)) is not None:
                defined["default_bucketize_value"] = bucket
            if defined:
                return defined
        return {}

    def _dim(self, feature: Feature, rule: Rule) -> int:
        for member in self._groups[feature.embedding_name]:
            if member.operator.embedding_dim is not None:
                return member.operator.embedding_dim
        own = next(iter(self._statistics.own_values(self._names(feature), "embedding_dim").values()), None)
        return own or embedding_dim(rule.distinct, self._statistics.embedding_dim_policy)

    def _setting(self, feature: Feature, key: str) -> Any:
        own = self._statistics.own_values(self._names(feature), key)
        return next(iter(own.values()), getattr(self._statistics, key, None))

    def _names(self, feature: Feature) -> list[str]:
        if feature.kind is Kind.NUMERIC:
            return [feature.name]
        return [feature.embedding_name, *(member.name for member in self._groups[feature.embedding_name])]

    def _counted_members(self, feature: Feature) -> list[str]:
        return [member.name for member in self._groups[feature.embedding_name] if member.name in self._counts]

    @staticmethod
    def _boundaries(feature: Feature) -> list[float]:
        return getattr(feature.operator, "boundaries", None) or []


def embedding_dim(distinct: int, policy: EmbeddingDimPolicy) -> int:
    """Returns the embedding width for a number of distinct values: a multiple of the policy's step, at least one step.

    Halves are rounded to even. Example: for 10000 values SQRT4_STEP4 gives round(10 / 4) * 4 = round(2.5) * 4 = 8.
    """
    step = 8 if policy.value.endswith("STEP8") else 4
    number = max(distinct, 1)
    size = math.sqrt(math.sqrt(number)) if "SQRT4" in policy.value else math.log(number)
    return max(round(size / step) * step, step)
