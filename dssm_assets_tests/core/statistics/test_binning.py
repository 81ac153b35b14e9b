"""Binning: boundaries by hand, and the properties of equal-frequency bins."""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.core.features.fg_tables import NUMERIC_VALUE_COUNTS
from dssm_assets.core.statistics.binning import bin_features, equal_frequency_boundaries


def cut(pairs: list[tuple[float, int]], num_bins: int) -> list[float]:
    values, counts = zip(*pairs, strict=True)
    return equal_frequency_boundaries(np.array(values), np.array(counts), num_bins)


@pytest.mark.parametrize(
    ("pairs", "num_bins", "expected"),
    [
        ([(float(i), 1) for i in range(1, 11)], 5, [3, 5, 7, 9]),
        ([(1, 5), (2, 1), (3, 1), (4, 5)], 2, [3]),
        ([(0, 998), (1, 1), (2, 1)], 2, [1]),
        ([(0, 1), (1, 1), (2, 998)], 2, [2]),
        ([(7, 100)], 10, []),
        ([(1, 50), (2, 1), (9, 3)], 10, [2, 9]),
        ([(1, 50), (2, 1), (9, 3)], 3, [2, 9]),
        # 12 rows, 4 bins: targets 3, 6, 9 below; 2, 8, 10, 11 are possible. 3 -> 2, 6 -> 8, 9 lies between 8 and 10: lower.
        ([(1, 2), (2, 6), (3, 2), (4, 1), (5, 1)], 4, [2, 3]),
    ],
)
def test_boundaries_by_hand(pairs: list[tuple[float, int]], num_bins: int, expected: list[float]) -> None:
    assert cut(pairs, num_bins) == expected


worlds = st.dictionaries(st.integers(-40, 40), st.integers(1, 60), min_size=1, max_size=30).map(lambda d: sorted(d.items()))


@given(worlds, st.integers(2, 12))
def test_bins_are_ascending_not_empty_and_at_most_num_bins(world: list[tuple[int, int]], num_bins: int) -> None:
    boundaries = cut([(float(v), c) for v, c in world], num_bins)
    assert all(a < b for a, b in itertools.pairwise(boundaries))
    bins = np.searchsorted(boundaries, [v for v, _ in world], side="right")
    assert set(bins.tolist()) == set(range(len(boundaries) + 1))
    assert len(boundaries) + 1 <= num_bins
    assert (len(boundaries) == 0) == (len(world) == 1)


@given(worlds, st.integers(2, 12))
def test_each_cut_is_at_the_gap_nearest_to_its_rank(world: list[tuple[int, int]], num_bins: int) -> None:
    if len(world) <= num_bins:
        return
    total = sum(count for _, count in world)
    below = [(sum(c for _, c in world[:i]), value) for i, (value, _) in enumerate(world)][1:]
    nearest = {min(below, key=lambda p: (abs(p[0] * num_bins - k * total), p[0]))[1] for k in range(1, num_bins)}
    assert cut([(float(v), c) for v, c in world], num_bins) == sorted(nearest)


def test_table_by_hand() -> None:
    names = ["b", "a", "a", "a", "c", "b"]
    merged = pa.table([names, [7, 2, 1, None, None, None], [4, 3, 3, 5, 6, 1]], schema=NUMERIC_VALUE_COUNTS.schema)
    assert bin_features(merged, 10).to_pylist() == [
        {"feature": "a", "boundaries": [2], "count": 11, "missing_count": 5, "distinct_count": 2, "min": 1, "max": 2},
        {"feature": "b", "boundaries": [], "count": 5, "missing_count": 1, "distinct_count": 1, "min": 7, "max": 7},
        {"feature": "c", "boundaries": [], "count": 6, "missing_count": 6, "distinct_count": 0, "min": None, "max": None},
    ]


def test_empty_table_has_no_features() -> None:
    assert bin_features(NUMERIC_VALUE_COUNTS.schema.empty_table(), 4).num_rows == 0


def test_feature_may_have_its_own_number_of_bins() -> None:
    merged = pa.table([["a"] * 4 + ["b"] * 4, [1.0, 2, 3, 4] * 2, [1] * 8], schema=NUMERIC_VALUE_COUNTS.schema)
    assert bin_features(merged, 4, {"b": 2}).column("boundaries").to_pylist() == [[2, 3, 4], [3]]
