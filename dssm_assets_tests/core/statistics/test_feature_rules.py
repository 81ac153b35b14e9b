"""Vocabularies of features that share an embedding, and shares of values in shared buckets."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.core.features.fg_tables import CATEGORY_VALUE_COUNTS
from dssm_assets.core.statistics.feature_rules import FeatureCounts, collision_frac

COUNTS = FeatureCounts(
    pa.table([["a", "b", "a", "b", "a"], [5, 5, -5, None, None], [2, 3, 5, 4, 1]], schema=CATEGORY_VALUE_COUNTS.schema)
)


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


@given(st.lists(st.integers(0, 2**64 - 1), unique=True, max_size=50), st.integers(1, 60))
def test_collision_frac_counts_every_value_with_a_neighbour(hashes: list[int], bucket_count: int) -> None:
    buckets = [value % bucket_count for value in hashes]
    shared = sum(buckets.count(bucket) > 1 for bucket in buckets)
    assert collision_frac(np.array(hashes, np.uint64), bucket_count) == (shared / len(hashes) if hashes else 0.0)
