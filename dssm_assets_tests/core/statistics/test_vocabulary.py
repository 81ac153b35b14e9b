"""Vocabularies: order, threshold, and sums over features that share an embedding."""

from __future__ import annotations

import pyarrow as pa

from dssm_assets.core.statistics.value_counts import CATEGORY_COUNTS
from dssm_assets.core.statistics.vocabulary import FeatureCounts

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


def test_contains_counted_features_only() -> None:
    assert "a" in COUNTS
    assert "z" not in COUNTS
