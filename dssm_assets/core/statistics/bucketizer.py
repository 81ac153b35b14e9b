"""From encoded values to embedding indices, by the rules of feature_config.

Belongs here: the one definition of the index of a value. Does not belong here: how the rules are decided
(`feature_config.py`) and what bucket a definition alone gives (`buckets.py`).

Index 0 is missing, always. A number: 1 + how many boundaries b have b <= x. A vocabulary: 1 is out of vocabulary,
2.. the vocabulary in its order. Hash buckets: 1 + (unsigned hash) modulo the size. A vocabulary with its own
default_bucketize_value: 1 + bucket.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dssm_assets.core.arrays import ragged
from dssm_assets.core.columns import FEATURE, FEATURE_INFO
from dssm_assets.core.config.features import HashFunction
from dssm_assets.core.errors import Fault, SchemaError
from dssm_assets.core.features.buckets import Vocabulary, bin_of, given_vocabulary, hash_bucket, integers_below
from dssm_assets.core.features.expressions import Kind, Side
from dssm_assets.core.features.operators.base import FIRST_BUCKET
from dssm_assets.core.statistics.feature_rules import FeatureInfo
from dssm_assets.core.statistics.vocabulary import FeatureCounts

MISSING: Final = 0
OUT_OF_VOCABULARY: Final = 1

Indices = np.ndarray[Any, np.dtype[np.int32]]


@dataclass(frozen=True)
class BucketFeature:
    """A kept feature: the column of its embedding indices and the table they point into.

    Attributes:
        name: the feature, `sequence__feature` for a sub-feature of a sequence.
        side: the tower that reads it.
        kind: number or category.
        is_multi: a row holds a list of indices; false for a sub-feature, whose past items hold one each.
        is_weighted: a column beside it holds the weight of each value.
        sequence_name: the sequence it is part of, None for a feature of its own.
        embedding_name: features of one name share a table.
        embedding_dim: width of the table.
        num_embeddings: rows of the table; indices are below it.
    """

    name: str
    side: Side
    kind: Kind
    is_multi: bool
    is_weighted: bool
    sequence_name: str | None
    embedding_name: str
    embedding_dim: int
    num_embeddings: int

    @property
    def is_sequence(self) -> bool:
        """Tells whether it is a sub-feature of a sequence."""
        return self.sequence_name is not None


class Bucketizer:
    """Embedding indices of the features that feature_config keeps."""

    def __init__(self, feature_config: pa.Table, counts: pa.Table) -> None:
        """Reads the rules, and the vocabularies from the counts that they were decided from.

        Raises:
            SchemaError: naming every feature whose vocabulary in the counts has another size than in its rule.
        """
        kept = feature_config.filter(feature_config.column(FEATURE_INFO).is_valid())
        texts = zip(kept.column(FEATURE).to_pylist(), kept.column(FEATURE_INFO).to_pylist(), strict=True)
        infos = {name: FeatureInfo.from_json(text) for name, text in texts}
        grouped = FeatureCounts(counts)
        faults = [fault for name, info in infos.items() for fault in _count_faults(name, info, grouped)]
        if faults:
            raise SchemaError(faults)
        self.features: tuple[BucketFeature, ...] = tuple(_feature(name, info) for name, info in infos.items())
        self._kinds = {name: info.kind for name, info in infos.items()}
        shared: dict[str, Callable[[Any], Indices]] = {}
        self._rules: dict[str, Callable[[Any], Indices]] = {}
        for name, info in infos.items():
            # Features of one embedding have one rule: the vocabulary is sorted once and held once.
            key = info.embedding_name if info.kind is Kind.CATEGORICAL else f"{info.embedding_name}/{name}"
            if key not in shared:
                shared[key] = _rule(info, grouped)
            self._rules[name] = shared[key]

    def bucketize(self, feature: str, column: pa.Array | pa.ChunkedArray) -> pa.Array:
        """Returns the embedding index of each value, int32, or list<int32> of equal lengths for a column of lists.

        No result is null: a missing value, also one inside a list, is 0; a missing or empty list is an empty list.

        Raises:
            SchemaError: if the feature was not kept, or the column does not hold its encoded values.
        """
        if feature not in self._rules:
            known = ", ".join(self._rules) or "no features"
            raise SchemaError(
                Fault(f"feature {feature}", f"one of: {known}", "a feature that is not kept", "ask for kept features")
            )
        array = ragged.combine_chunks(column)
        if ragged.is_list(array.type):
            flat, offsets = ragged.flatten(array)
            return ragged.build(self._indices(feature, flat), offsets)
        return self._indices(feature, array)

    def _indices(self, feature: str, array: pa.Array) -> pa.Array:
        is_number = self._kinds[feature] is Kind.NUMERIC
        fitting = pa.types.is_floating(array.type) if is_number else pa.types.is_int64(array.type)
        if pa.types.is_null(array.type):
            return pa.array(np.zeros(len(array), dtype=np.int32))
        if not fitting:
            expected = "float32 numbers" if is_number else "int64 hashes"
            raise SchemaError(Fault(f"feature {feature}", expected, str(array.type), "bucketize what feature generation wrote"))
        is_missing = ragged.null_mask(array)
        values = (array.fill_null(0) if array.null_count else array).to_numpy(zero_copy_only=False)
        indices = self._rules[feature](values).astype(np.int32, copy=False)
        if is_number:
            is_missing |= np.isnan(values)
        indices[is_missing] = MISSING
        return pa.array(indices)


def _feature(name: str, info: FeatureInfo) -> BucketFeature:
    return BucketFeature(
        name=name,
        side=info.side,
        kind=info.kind,
        is_multi=info.is_multi,
        is_weighted=bool(info.is_weighted),
        sequence_name=info.sequence_name,
        embedding_name=info.embedding_name,
        embedding_dim=info.embedding_dim,
        num_embeddings=info.num_embeddings,
    )


def _rule(info: FeatureInfo, counts: FeatureCounts) -> Callable[[Any], Indices]:
    """Returns embedding indices from buckets: 0 stays free for missing values, 1 for those out of a vocabulary."""
    if info.boundary is not None:
        boundaries = info.boundary
        return lambda values: (1 + bin_of(boundaries, values)).astype(np.int32)
    if info.hash_bucket_size is not None:
        size = info.hash_bucket_size
        return lambda values: (1 + hash_bucket(values, size)).astype(np.int32)
    if info.vocab_size is not None:
        hashes = counts.vocabulary(info.counted_features or [], info.min_count or 1)
        return _indices_of(Vocabulary.from_hashes(hashes, np.arange(len(hashes)) + FIRST_BUCKET, OUT_OF_VOCABULARY), 0)
    default_bucket, function = info.default_bucketize_value, info.hash_function or HashFunction.MURMUR
    if info.num_buckets is not None:
        integers = integers_below(info.num_buckets, default_bucket, function)
        return _indices_of(integers, FIRST_BUCKET if default_bucket is None else 1)
    first = FIRST_BUCKET if default_bucket is None else 0
    words = info.vocab_dict or {word: first + place for place, word in enumerate(info.vocab_list or [])}
    given = given_vocabulary(words, info.default_value or "", default_bucket, function)
    return _indices_of(given, 0 if default_bucket is None else 1)


def _indices_of(vocabulary: Vocabulary, offset: int) -> Callable[[Any], Indices]:
    """Returns the rule "bucket + offset"; with offset 2 NO_BUCKET becomes OUT_OF_VOCABULARY."""
    return lambda hashes: (vocabulary(hashes) + offset).astype(np.int32)


def _count_faults(name: str, info: FeatureInfo, counts: FeatureCounts) -> list[Fault]:
    if info.vocab_size is None:
        return []
    wanted = info.counted_features or []
    missing = [feature for feature in wanted if feature not in counts]
    where, remedy = f"feature {name}, vocabulary", "give the counts that feature_config was made from"
    if missing:
        return [Fault(where, f"counts of {', '.join(wanted)}", f"none of {', '.join(missing)}", remedy)]
    size = len(counts.vocabulary(wanted, info.min_count or 1))
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
"""Keys that decide which row a value gets, where no counts do."""

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class CarriedRows:
    """Rows of one embedding, of today and of the earlier day, one beside the other; row 0 (missing) is not among them."""

    today: Rows
    earlier: Rows


class FeatureRows:
    """The feature configuration of a day as rules from values to rows."""

    def __init__(self, feature_config: pa.Table, counts: pa.Table) -> None:
        """Reads the rules.

        Args:
            feature_config: of the day.
            counts: that it was decided from.

        Raises:
            SchemaError: the counts are not those of the configuration.
        """
        self.bucketizer = Bucketizer(feature_config, counts)
        self.counts = FeatureCounts(counts)
        kept = feature_config.filter(feature_config.column(FEATURE_INFO).is_valid())
        self.of_embedding: dict[str, tuple[str, FeatureInfo]] = {}
        for name, text in zip(kept.column(FEATURE).to_pylist(), kept.column(FEATURE_INFO).to_pylist(), strict=True):
            info = FeatureInfo.from_json(text)
            self.of_embedding.setdefault(info.embedding_name, (name, info))


def carried_rows(today: FeatureRows, earlier: FeatureRows) -> dict[str, CarriedRows]:
    """Returns the rows that stand for the same values on both days, by embedding; embeddings of one day alone are left out."""
    return {
        embedding: _carried(today, earlier, embedding) for embedding in today.of_embedding if embedding in earlier.of_embedding
    }


def _carried(today: FeatureRows, earlier: FeatureRows, embedding: str) -> CarriedRows:
    name, info = today.of_embedding[embedding]
    name_before, before = earlier.of_embedding[embedding]
    if info.vocab_size is not None and before.vocab_size is not None and info.hash_function == before.hash_function:
        hashes = today.counts.vocabulary(info.counted_features or [], info.min_count or 1)
        rows, rows_before = _of_values(today, name, hashes), _of_values(earlier, name_before, hashes)
        same = rows_before > OUT_OF_VOCABULARY
        outside = np.array([OUT_OF_VOCABULARY], np.int64)
        return CarriedRows(np.concatenate([outside, rows[same]]), np.concatenate([outside, rows_before[same]]))
    if info.boundary and before.boundary:
        middles = _middles(np.asarray(info.boundary, np.float32))
        return CarriedRows(_of_values(today, name, middles), _of_values(earlier, name_before, middles))
    same_rule = all(getattr(info, key) == getattr(before, key) for key in _RULE)
    rows = np.arange(1, info.num_embeddings if same_rule and info.vocab_size == before.vocab_size else 1, dtype=np.int64)
    return CarriedRows(rows, rows)


def _of_values(rows: FeatureRows, feature: str, values: npt.NDArray[Any]) -> Rows:
    return np.asarray(rows.bucketizer.bucketize(feature, pa.array(values)).to_numpy(), np.int64)


def _middles(boundaries: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Returns a number inside of every bin [a, b), also of the first and the last, which have one end.

    Where no float32 lies between a and b, the middle may round to b, outside of the bin: a is all that is in it.
    """
    below = np.nextafter(boundaries[:1], np.float32(-np.inf))
    between = ((boundaries[:-1].astype(np.float64) + boundaries[1:]) / 2).astype(np.float32)
    inside = np.where(between < boundaries[1:], between, boundaries[:-1])
    return np.concatenate([below, inside, boundaries[-1:]]).astype(np.float32)
