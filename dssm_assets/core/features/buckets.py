"""Bucket ids: what the keys of a definition alone make of a value, exactly as the reference does.

Belongs here: boundaries, hash buckets and given vocabularies, the one definition of each. Does not belong here:
vocabularies counted from a window and embedding indices, which add the missing value (`bucketizer.py`).

A number falls to the bin [a, b) it lies in: bucket = how many boundaries b have b <= x. A category: hash modulo
hash_bucket_size; its own integer below num_buckets; or its place in the vocabulary. A vocabulary without
default_bucketize_value reserves 0 for the default value and 1 for values out of it; with one, nothing is reserved and
values out of it get default_bucketize_value. An integer outside of num_buckets without it has no bucket.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa

from dssm_assets.core.arrays import ragged
from dssm_assets.core.arrays.hashing import hash_texts, hash_values
from dssm_assets.core.config.features import HashFunction
from dssm_assets.core.features.expressions import Kind
from dssm_assets.core.features.operators.base import VOCABULARY_KEYS, Operator

NO_BUCKET: Final = -1
DEFAULT_BUCKET: Final = 0
OUTSIDE_BUCKET: Final = 1

Ids = np.ndarray[Any, np.dtype[np.int64]]

_MANY: Final = 1_024
"""Values of which it pays to find the different ones before they are searched for."""


def bin_of(boundaries: Any, numbers: Any) -> Ids:
    """Returns the bin [a, b) of each float32 number: how many boundaries are at most the number.

    Boundaries become float32 like the numbers, so that 0.7 lies in the bin that starts at 0.7.
    """
    found: Ids = np.searchsorted(np.asarray(boundaries, np.float32), np.asarray(numbers, np.float32), side="right")
    return found


def hash_bucket(hashes: Any, size: int) -> Ids:
    """Returns the bucket of each hash, given as uint64 or as int64 of the same bits."""
    found: Ids = (hashes.view(np.uint64) % np.uint64(size)).astype(np.int64)
    return found


@dataclass(frozen=True)
class Vocabulary:
    """Buckets of known values by their hashes, ascending, and the bucket of every other value (NO_BUCKET: none)."""

    hashes: Any
    buckets: Ids
    outside: int

    @classmethod
    def from_hashes(cls, hashes: Any, buckets: Any, outside: int) -> Vocabulary:
        """Returns the vocabulary of distinct hashes in any order and their buckets."""
        order = np.argsort(hashes, kind="stable")
        # The last place answers for hashes above all of the vocabulary: whether or not it matches, it is outside.
        return cls(np.append(hashes[order], np.int64(0)), np.append(np.asarray(buckets)[order], outside), outside)

    def __call__(self, hashes: Any) -> Ids:
        """Returns the bucket of each int64 hash."""
        if len(hashes) > _MANY:
            encoded = pa.array(hashes).dictionary_encode()
            places: Ids = self._found(encoded.dictionary.to_numpy())[encoded.indices.to_numpy()]
            return places
        return self._found(hashes)

    def _found(self, hashes: Any) -> Ids:
        place = np.searchsorted(self.hashes[:-1], hashes)
        found: Ids = np.where(self.hashes[place] == hashes, self.buckets[place], self.outside)
        return found


def given_vocabulary(
    words: Mapping[str, int], default_text: str, default_bucket: int | None, function: HashFunction
) -> Vocabulary:
    """Returns the vocabulary that a definition gives.

    Args:
        words: bucket of each word.
        default_text: the feature's default_value; without default_bucket it gets bucket 0 unless it is a word.
        default_bucket: default_bucketize_value.
        function: the hash of the words.
    """
    known = dict(words)
    if default_bucket is None and default_text:
        known.setdefault(default_text, DEFAULT_BUCKET)
    outside = OUTSIDE_BUCKET if default_bucket is None else default_bucket
    return Vocabulary.from_hashes(hash_texts(list(known), function), np.fromiter(known.values(), np.int64, len(known)), outside)


def integers_below(size: int, default_bucket: int | None, function: HashFunction) -> Vocabulary:
    """Returns the vocabulary of the integers 0 .. size - 1, each its own bucket."""
    digits = pa.array(np.arange(size)).cast(pa.string())
    outside = NO_BUCKET if default_bucket is None else default_bucket
    return Vocabulary.from_hashes(hash_values(digits, function).view(np.int64), np.arange(size), outside)


def has_buckets(operator: Operator) -> bool:
    """Tells whether a definition says by itself what bucket a value gets."""
    keys = ("boundaries",) if operator.kind is Kind.NUMERIC else VOCABULARY_KEYS
    return any(getattr(operator, key, None) is not None for key in keys)


class BucketRule:
    """From values of one feature to bucket ids, by the keys of its definition."""

    def __init__(self, operator: Operator, function: HashFunction) -> None:
        self._operator = operator
        self._function = function
        self._of_flat = self._numbers if operator.kind is Kind.NUMERIC else self._categories
        self._of_hashes = self._category_rule() if operator.kind is Kind.CATEGORICAL else None

    def __call__(self, values: pa.Array) -> pa.Array:
        """Returns int64 bucket ids in the nesting of the values; null where a value is missing or has no bucket."""
        return ragged.map_leaves(values, self._of_flat)

    def _numbers(self, values: pa.Array) -> pa.Array:
        numbers = values.fill_null(0).to_numpy(zero_copy_only=False)
        boundaries = getattr(self._operator, "boundaries")  # noqa: B009  of NumberKeys, which has_buckets found
        return pa.array(bin_of(boundaries, numbers), mask=ragged.null_mask(values))

    def _categories(self, values: pa.DictionaryArray) -> pa.Array:
        assert self._of_hashes is not None
        if len(values.dictionary) > len(values):
            values = values.dictionary_decode().dictionary_encode()
        distinct = np.append(self._of_hashes(hash_values(values.dictionary, self._function).view(np.int64)), NO_BUCKET)
        codes = values.indices.fill_null(len(distinct) - 1).to_numpy(zero_copy_only=False)
        ids = distinct[codes]
        return pa.array(ids, mask=ids == NO_BUCKET)

    def _category_rule(self) -> Callable[[Any], Ids]:
        operator, function = self._operator, self._function
        size = getattr(operator, "hash_bucket_size", None)
        if size is not None:
            return lambda hashes: hash_bucket(hashes, size)
        default_bucket = getattr(operator, "default_bucketize_value", None)
        integers = getattr(operator, "num_buckets", None)
        if integers is not None:
            return integers_below(integers, default_bucket, function)
        words = getattr(operator, "vocabulary")  # noqa: B009  of CategoryKeys, whose keys has_buckets found
        return given_vocabulary(words, operator.default_text, default_bucket, function)


class FeatureBuckets:
    """Bucket rules by definition."""

    def __init__(self, function: HashFunction) -> None:
        self._function = function
        self._rules: dict[int, tuple[Operator, BucketRule | None]] = {}

    def rule(self, operator: Operator) -> BucketRule | None:
        """Returns the rule of a definition, None if it does not say what bucket a value gets."""
        if id(operator) not in self._rules:
            # The definition is kept beside its rule: its id stays its own as long as the rule lives.
            self._rules[id(operator)] = (operator, BucketRule(operator, self._function) if has_buckets(operator) else None)
        return self._rules[id(operator)][1]
