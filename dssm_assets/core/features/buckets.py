"""Bucket ids of values where the feature's definition suffices to compute them. They equal the reference's exactly.

- A number x gets its bin [a, b), numbered by how many boundaries are at or below x.
- A category gets its hash modulo hash_bucket_size, its own integer below num_buckets, or its bucket in the vocabulary.
- A vocabulary without default_bucketize_value reserves 0 for the default value and 1 for values out of the vocabulary. With
  default_bucketize_value nothing is reserved, and values out of the vocabulary get that bucket.
- An integer outside num_buckets gets default_bucketize_value, or no bucket without it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import pyarrow as pa

from dssm_assets.core.arrays import ragged
from dssm_assets.core.arrays.hashing import hash_texts, hash_values
from dssm_assets.core.arrays.ragged import IntArray
from dssm_assets.core.config.features import HashFunction
from dssm_assets.core.features.expressions import Kind
from dssm_assets.core.features.operators.base import Operator

HashRule = Callable[[Any], IntArray]
"""Returns the bucket or embedding index of each encoded value."""

NO_BUCKET: Final = -1
DEFAULT_BUCKET: Final = 0
OUTSIDE_BUCKET: Final = 1
MANY_HASHES: Final = 1_024
"""From so many hashes on, it takes a third of the time to look up each distinct hash once."""


def bin_of(boundaries: Any, numbers: Any) -> IntArray:
    """Returns the bin [a, b) of each float32 number: the number of boundaries at or below it.

    Boundaries are rounded to float32 like the numbers, so 0.7 is in the bin from 0.7 on.
    """
    return np.searchsorted(np.asarray(boundaries, np.float32), np.asarray(numbers, np.float32), side="right")


def hash_bucket(hashes: Any, size: int) -> IntArray:
    """Returns the bucket of each hash, given as uint64 or as int64 with the same bits."""
    return np.asarray(hashes.view(np.uint64) % np.uint64(size), np.int64)


@dataclass(frozen=True)
class Vocabulary:
    """Buckets of known values.

    Attributes:
        hashes: hashes of the values, ascending, then one sentinel.
        buckets: bucket of each value; the sentinel's is `outside`.
        outside: bucket of every unknown value; NO_BUCKET for none.
    """

    hashes: Any
    buckets: IntArray
    outside: int

    @classmethod
    def from_hashes(cls, hashes: Any, buckets: Any, outside: int) -> Vocabulary:
        """Returns the vocabulary of distinct hashes, in any order, and their buckets."""
        order = np.argsort(hashes, kind="stable")
        # A hash above all known ones finds the sentinel. Equal to it or not, the hash gets `outside`.
        return cls(np.append(hashes[order], np.int64(0)), np.append(np.asarray(buckets)[order], outside), outside)

    def __call__(self, hashes: Any) -> IntArray:
        """Returns the bucket of each int64 hash."""
        distinct, place = hashes, np.s_[:]
        if len(hashes) > MANY_HASHES:
            encoded = pa.array(hashes).dictionary_encode()
            distinct, place = encoded.dictionary.to_numpy(), encoded.indices.to_numpy()
        position = np.searchsorted(self.hashes[:-1], distinct)
        return np.where(self.hashes[position] == distinct, self.buckets[position], self.outside)[place]


def given_vocabulary(
    words: Mapping[str, int], default_text: str, default_bucket: int | None, function: HashFunction
) -> Vocabulary:
    """Returns the vocabulary that a definition lists.

    Args:
        words: word -> bucket.
        default_text: the feature's default_value. It gets bucket 0, unless it is a word or default_bucket is given.
        default_bucket: default_bucketize_value.
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


BucketRule = Callable[[pa.Array], pa.Array]
"""Returns int64 bucket ids, nested like the values; null where a value is missing or has no bucket."""


def bucket_rule(operator: Operator, function: HashFunction) -> BucketRule | None:
    """Returns the bucket rule of a definition. None if its buckets also need statistics of the data."""
    if operator.kind is Kind.NUMERIC:
        boundaries = getattr(operator, "boundaries", None)
        return None if boundaries is None else lambda values: ragged.map_leaves(values, partial(_bin_numbers, boundaries))
    size, integers, words, default_bucket = (
        getattr(operator, key, None) for key in ("hash_bucket_size", "num_buckets", "vocabulary", "default_bucketize_value")
    )
    bucket_of: HashRule
    if size is not None:
        bucket_of = partial(hash_bucket, size=size)
    elif integers is not None:
        bucket_of = integers_below(integers, default_bucket, function)
    elif words is not None:
        bucket_of = given_vocabulary(words, operator.default_text, default_bucket, function)
    else:
        return None
    return lambda values: ragged.map_leaves(values, partial(_bucket_categories, bucket_of, function))


def _bin_numbers(boundaries: Any, values: pa.Array) -> pa.Array:
    numbers = values.fill_null(0).to_numpy(zero_copy_only=False)
    return pa.array(bin_of(boundaries, numbers), mask=ragged.null_mask(values))


def _bucket_categories(bucket_of: HashRule, function: HashFunction, values: pa.DictionaryArray) -> pa.Array:
    if len(values.dictionary) > len(values):
        values = values.dictionary_decode().dictionary_encode()
    distinct = np.append(bucket_of(hash_values(values.dictionary, function).view(np.int64)), NO_BUCKET)
    ids = distinct[values.indices.fill_null(len(distinct) - 1).to_numpy(zero_copy_only=False)]
    return pa.array(ids, mask=ids == NO_BUCKET)
