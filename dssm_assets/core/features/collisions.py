"""How many values are told apart no more: in a hash bucket, or in the 64 bits of the hash itself.

Belongs here: the shares that feature_config reports, and what a hash without fault would give. Does not belong here:
the bucket of a hash (`buckets.py`) and the size to choose (`feature_rules.py`).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa

from dssm_assets.core.features.buckets import hash_bucket
from dssm_assets.core.features.hash_function import HashFunction
from dssm_assets.core.features.hashing import hash_values


def collision_frac(hashes: Any, bucket_count: int) -> float:
    """Returns the share of distinct values that share their bucket with another one; 0 if there are no values.

    Four values in the buckets 0, 1, 1, 2: two of four share one, 0.5.

    Args:
        hashes: one uint64 or int64 hash per distinct value.
        bucket_count: hash modulo this is the bucket.

    Raises:
        ValueError: if there is no bucket.
    """
    _check(bucket_count)
    buckets = hash_bucket(np.asarray(hashes), bucket_count)
    if not len(buckets):
        return 0.0
    _, counts = np.unique(buckets, return_counts=True)
    return float(counts[counts > 1].sum() / len(buckets))


def expected_collision_frac(distinct_count: int, bucket_count: int) -> float:
    """Returns the `collision_frac` that a hash which fills its buckets evenly has on average.

    A value stays alone if none of the n - 1 others falls to its bucket: 1 - (1 - 1/m)^(n - 1) for m buckets.

    Raises:
        ValueError: if there is no bucket, or fewer than no values.
    """
    _check(bucket_count)
    if distinct_count < 0:
        raise ValueError(f"the number of distinct values is 0 or more, got {distinct_count}")
    others = max(distinct_count - 1, 0)
    if bucket_count == 1:
        return float(others > 0)
    # 1 - 1/m is 1 in floating point where m is large: so the logarithm of it.
    return -math.expm1(others * math.log1p(-1 / bucket_count))


def texts_of_one_hash(texts: pa.Array | pa.ChunkedArray, function: HashFunction = HashFunction.MURMUR) -> list[tuple[str, ...]]:
    """Returns the groups of distinct texts that have one and the same 64-bit hash, each group and all of them sorted.

    None is to be expected: of 37 million sets of a million texts, one has a group. Nulls are no text.

    Args:
        texts: a column, or the entries of a dictionary.
        function: the hash.
    """
    distinct = texts.unique().drop_null()
    _, group, counts = np.unique(hash_values(distinct, function), return_inverse=True, return_counts=True)
    shared = np.flatnonzero(counts[group] > 1)
    groups: dict[int, list[str]] = {}
    for number, text in zip(group[shared].tolist(), distinct.take(pa.array(shared)).to_pylist(), strict=True):
        groups.setdefault(number, []).append(text)
    return sorted(tuple(sorted(found)) for found in groups.values())


def _check(bucket_count: int) -> None:
    if bucket_count < 1:
        raise ValueError(f"hash values need 1 bucket or more, got {bucket_count}")
