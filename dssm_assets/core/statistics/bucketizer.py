"""Turns encoded values into row numbers of embedding tables, and pairs the rows that mean the same on two days.

Row 0 is the missing value. The rule for other values is in feature_config:
- boundaries: 1 + the number of boundaries at or below the number;
- a vocabulary: 2 + the position of the category; 1 for a category that it lacks;
- hash buckets: 1 + the hash modulo their number;
- buckets with default_bucketize_value: 1 + the bucket.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dssm_assets.core.arrays import ragged
from dssm_assets.core.columns import FEATURE, FEATURE_INFO
from dssm_assets.core.config.features import HashFunction
from dssm_assets.core.errors import Fault, SchemaError
from dssm_assets.core.features.buckets import HashRule, Vocabulary, bin_of, given_vocabulary, hash_bucket, integers_below
from dssm_assets.core.features.expressions import Kind
from dssm_assets.core.features.operators.base import FIRST_BUCKET
from dssm_assets.core.statistics.feature_rules import FeatureCounts, FeatureInfo

MISSING: Final = 0
OUT_OF_VOCABULARY: Final = 1


class BucketFeature(FeatureInfo):
    """The rule of one kept feature, with its name (`sequence__feature` for a sub-feature of a sequence)."""

    name: str


class Bucketizer:
    """Converts values of the kept features to embedding indices."""

    def __init__(self, feature_config: pa.Table, counts: pa.Table) -> None:
        """Reads the rules from feature_config, and vocabularies from the counts. A SchemaError names every mismatch."""
        kept = feature_config.filter(feature_config.column(FEATURE_INFO).is_valid())
        texts = zip(kept.column(FEATURE).to_pylist(), kept.column(FEATURE_INFO).to_pylist(), strict=True)
        self.features = tuple(
            BucketFeature(name=name, **FeatureInfo.model_validate_json(text).model_dump()) for name, text in texts
        )
        self.counts = FeatureCounts(counts)
        SchemaError.raise_if(fault for feature in self.features for fault in _count_faults(feature, self.counts))
        self._kinds = {feature.name: feature.kind for feature in self.features}
        self.feature_by_embedding: dict[str, BucketFeature] = {}
        shared: dict[str, HashRule] = {}
        self._rules: dict[str, HashRule] = {}
        for feature in self.features:
            # Features of one embedding share a rule, so that its vocabulary is sorted and stored only once.
            name, embedding = feature.name, feature.embedding_name
            self.feature_by_embedding.setdefault(embedding, feature)
            key = embedding if feature.kind is Kind.CATEGORICAL else f"{embedding}/{name}"
            if key not in shared:
                shared[key] = _build_rule(feature, self.counts)
            self._rules[name] = shared[key]

    def bucketize(self, feature: str, column: pa.Array | pa.ChunkedArray) -> pa.Array:
        """Returns the embedding index of each value: int32, or for a column of lists list<int32> with the same lengths.

        The result has no nulls. A missing value gets 0, also inside a list. A missing list becomes an empty list.

        Args:
            feature: a kept feature.
            column: its encoded values: float32 numbers or int64 hashes.

        Raises:
            SchemaError: the column has values of another type.
        """
        array = ragged.combine_chunks(column)
        if ragged.is_list(array.type):
            flat, offsets = ragged.flatten(array)
            return ragged.build_lists(self._indices(feature, flat), offsets)
        return self._indices(feature, array)

    def _indices(self, feature: str, array: pa.Array) -> pa.Array:
        if pa.types.is_null(array.type):
            return pa.array(np.zeros(len(array), dtype=np.int32))
        is_number = self._kinds[feature] is Kind.NUMERIC
        if not (pa.types.is_floating(array.type) if is_number else pa.types.is_int64(array.type)):
            expected = "float32 numbers" if is_number else "int64 hashes"
            raise SchemaError(Fault(f"feature {feature}", expected, str(array.type), "bucketize values of feature generation"))
        is_missing = ragged.null_mask(array)
        values = (array.fill_null(0) if array.null_count else array).to_numpy(zero_copy_only=False)
        indices = self._rules[feature](values).astype(np.int32, copy=False)
        if is_number:
            is_missing |= np.isnan(values)
        indices[is_missing] = MISSING
        return pa.array(indices)


def _build_rule(info: FeatureInfo, counts: FeatureCounts) -> HashRule:
    """Returns the function from encoded values to embedding indices. It never returns 0, the index of missing values."""
    if info.boundary is not None:
        boundaries = info.boundary
        return lambda values: 1 + bin_of(boundaries, values)
    if info.hash_bucket_size is not None:
        size = info.hash_bucket_size
        return lambda values: 1 + hash_bucket(values, size)
    default_bucket, function = info.default_bucketize_value, info.hash_function or HashFunction.MURMUR
    first, offset = (FIRST_BUCKET, 0) if default_bucket is None else (0, 1)
    if info.vocab_size is not None:
        hashes = counts.vocabulary(info.counted_features or [], info.min_count or 1)
        vocabulary = Vocabulary.from_hashes(hashes, np.arange(len(hashes)) + FIRST_BUCKET, OUT_OF_VOCABULARY)
    elif info.num_buckets is not None:
        # Without default_bucketize_value an integer outside has NO_BUCKET, which becomes OUT_OF_VOCABULARY.
        vocabulary, offset = integers_below(info.num_buckets, default_bucket, function), first + offset
    else:
        words = info.vocab_dict or {word: first + position for position, word in enumerate(info.vocab_list or [])}
        vocabulary = given_vocabulary(words, info.default_value or "", default_bucket, function)
    return lambda hashes: vocabulary(hashes) + offset


def _count_faults(info: BucketFeature, counts: FeatureCounts) -> list[Fault]:
    if info.vocab_size is None:
        return []
    where, remedy = f"feature {info.name}, vocabulary", "give the counts from which feature_config was decided"
    size = len(counts.vocabulary(info.counted_features or [], info.min_count or 1))
    return [] if size == info.vocab_size else [Fault(where, f"{info.vocab_size} values", f"{size} values", remedy)]


_RULE: Final = (
    "boundary",
    "vocab_list",
    "vocab_dict",
    "num_buckets",
    "hash_bucket_size",
    "default_bucketize_value",
    "default_value",
    "hash_function",
    "num_embeddings",
)
"""Keys that decide the embedding row of a value without counts."""

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class CarriedRows:
    """Pairs of rows of an embedding table with the same meaning on two days. Row 0 (missing) is left out."""

    today: Rows
    earlier: Rows


def match_rows(today: Bucketizer, earlier: Bucketizer) -> dict[str, CarriedRows]:
    """Returns embedding -> the rows with the same meaning on both days. Embeddings that only one day has are left out."""
    return {
        embedding: _match_embedding(today, earlier, info, earlier.feature_by_embedding[embedding])
        for embedding, info in today.feature_by_embedding.items()
        if embedding in earlier.feature_by_embedding
    }


def _match_embedding(today: Bucketizer, earlier: Bucketizer, info: BucketFeature, before: BucketFeature) -> CarriedRows:
    if info.vocab_size is not None and before.vocab_size is not None and info.hash_function == before.hash_function:
        hashes = today.counts.vocabulary(info.counted_features or [], info.min_count or 1)
        rows, rows_before = _rows_of_values(today, info.name, hashes), _rows_of_values(earlier, before.name, hashes)
        same = rows_before > OUT_OF_VOCABULARY
        outside = np.array([OUT_OF_VOCABULARY], np.int64)
        return CarriedRows(np.concatenate([outside, rows[same]]), np.concatenate([outside, rows_before[same]]))
    if info.boundary and before.boundary:
        middles = _middles(np.asarray(info.boundary, np.float32))
        return CarriedRows(_rows_of_values(today, info.name, middles), _rows_of_values(earlier, before.name, middles))
    same_rule = all(getattr(info, key) == getattr(before, key) for key in _RULE)
    rows = np.arange(1, info.num_embeddings if same_rule and info.vocab_size == before.vocab_size else 1, dtype=np.int64)
    return CarriedRows(rows, rows)


def _rows_of_values(rules: Bucketizer, feature: str, values: npt.NDArray[Any]) -> Rows:
    return np.asarray(rules.bucketize(feature, pa.array(values)).to_numpy(), np.int64)


def _middles(boundaries: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Returns a number inside every bin [a, b), also for the first and the last bin, which are open on one side.

    If the middle of a and b rounds to b, the result is a, because b is outside the bin.
    """
    below = np.nextafter(boundaries[:1], np.float32(-np.inf))
    between = ((boundaries[:-1].astype(np.float64) + boundaries[1:]) / 2).astype(np.float32)
    inside = np.where(between < boundaries[1:], between, boundaries[:-1])
    return np.concatenate([below, inside, boundaries[-1:]]).astype(np.float32)
