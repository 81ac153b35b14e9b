"""Vocabularies of features that share an embedding, and buckets of hashes."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from dssm_assets.core.features.buckets import hash_bucket
from dssm_assets.core.features.fg_tables import CATEGORY_VALUE_COUNTS
from dssm_assets.core.statistics.feature_rules import FeatureCounts

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
    assert hash_bucket(np.array([-1, 5, 9]), 5).tolist() == [0, 0, 4]
