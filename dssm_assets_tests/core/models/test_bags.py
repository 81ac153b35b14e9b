"""Ragged gathering and means, by hand and against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.core.models.bags import mean_bags, offsets_of, ragged_positions


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 5)), max_size=10))
def test_positions_equal_a_loop(slices: list[tuple[int, int]]) -> None:
    starts = np.array([start for start, _ in slices], np.int64)
    ends = starts + np.array([length for _, length in slices], np.int64)
    positions, offsets = ragged_positions(starts, ends)
    assert positions.tolist() == [p for start, length in slices for p in range(start, start + length)]
    assert offsets.tolist() == [0, *np.cumsum([length for _, length in slices]).tolist()]


def test_missing_values_count_neither_above_nor_below_the_line() -> None:
    # Rows: [4, 0, 6] -> mean of two, [0] -> empty, [] -> empty, [5].
    bags = mean_bags(np.array([4, 0, 6, 0, 5]), offsets_of(np.array([3, 1, 0, 1])))
    assert bags.values.tolist() == [4, 6, 5]
    assert bags.offsets.tolist() == [0, 2, 2, 2, 3]
    assert bags.weights.tolist() == [0.5, 0.5, 1.0]


def test_importance_is_divided_by_its_sum_over_present_values() -> None:
    bags = mean_bags(np.array([1, 2, 0]), np.array([0, 3]), np.array([3.0, 1.0, 100.0]))
    assert bags.weights == pytest.approx([0.75, 0.25])
