"""Vocabularies of features that share an embedding, and shares of values in shared buckets."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.core.arrays.hashing import hash_values
from dssm_assets.core.config.features import HashFunction
from dssm_assets.core.statistics.feature_rules import FeatureCounts, collision_frac
from dssm_assets.core.statistics.value_counts import CATEGORY_COUNTS

COUNTS = FeatureCounts(pa.table([["a", "b", "a", "b", "a"], [5, 5, -5, None, None], [2, 3, 5, 4, 1]], schema=CATEGORY_COUNTS))


def test_counts_of_features_that_share_an_embedding_add_up() -> None:
    hashes, counts = COUNTS.by_frequency(["a", "b"])
    assert (hashes.tolist(), counts.tolist()) == ([-5, 5], [5, 5])
    assert COUNTS.by_frequency(["a"])[1].tolist() == [5, 2]
    assert COUNTS.totals(["a", "b"]) == (15, 5)


def test_min_count_applies_to_the_sum() -> None:
    assert COUNTS.vocabulary(["a", "b"], 5).tolist() == [-5, 5]
    assert COUNTS.vocabulary(["a"], 3).tolist() == [-5]
    assert COUNTS.vocabulary([], 1).tolist() == []


def test_signed_hashes_have_the_buckets_of_the_unsigned() -> None:
    # 2^64 - 1 and 5 are both 0 modulo 5; as an integer of its own, -1 would be 4 with 9.
    assert collision_frac(np.array([-1, 5, 9]), 5) == 2 / 3


@pytest.mark.parametrize("function", HashFunction)
@pytest.mark.parametrize("bucket_count", [100_000, 500_000, 1_000_003])
def test_hashes_fill_their_buckets_uniformly(function: HashFunction, bucket_count: int) -> None:
    hashes = hash_values(pa.array([f"item_{number}" for number in range(100_000)]), function)
    # Five standard deviations: a share of 100000 values, whose collisions come mostly in pairs.
    expected = 1 - (1 - 1 / bucket_count) ** (len(hashes) - 1)
    assert abs(collision_frac(hashes, bucket_count) - expected) < 5 * math.sqrt(2 * expected * (1 - expected) / len(hashes))


@given(st.lists(st.integers(0, 2**64 - 1), unique=True, max_size=50), st.integers(1, 60))
def test_collision_frac_counts_every_value_with_a_neighbour(hashes: list[int], bucket_count: int) -> None:
    buckets = [value % bucket_count for value in hashes]
    shared = sum(buckets.count(bucket) > 1 for bucket in buckets)
    assert collision_frac(np.array(hashes, np.uint64), bucket_count) == (shared / len(hashes) if hashes else 0.0)
