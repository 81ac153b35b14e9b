"""Ragged gathering and means, by hand and against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.core.arrays.bags import mean_bags, weighted_bags
from dssm_assets.core.arrays.ragged import offsets_of

ROWS = st.lists(st.lists(st.tuples(st.integers(0, 5), st.floats(width=32, allow_nan=False, allow_infinity=False)), max_size=5))


def test_mean_bags_leave_out_missing_values_and_their_weight() -> None:
    # Rows: [4, 0, 6] -> mean of two, [0] -> empty, [] -> empty, [5].
    bags = mean_bags(np.array([4, 0, 6, 0, 5]), offsets_of(np.array([3, 1, 0, 1])))
    assert bags.values.tolist() == [4, 6, 5]
    assert bags.offsets.tolist() == [0, 2, 2, 2, 3]
    assert bags.weights.tolist() == [0.5, 0.5, 1.0]


@given(ROWS)
def test_weighted_bags_equal_a_loop(rows: list[list[tuple[int, float]]]) -> None:
    values = np.array([value for row in rows for value, _ in row], np.int32)
    weights = np.array([weight for row in rows for _, weight in row], np.float32)
    bags = weighted_bags(values, offsets_of(np.array([len(row) for row in rows], np.int64)), weights)
    for number, row in enumerate(rows):
        counted = [(value, weight) for value, weight in row if value and weight]
        of_row = slice(bags.offsets[number], bags.offsets[number + 1])
        assert bags.values[of_row].tolist() == [value for value, _ in counted]
        total = sum(abs(weight) for _, weight in counted)
        assert bags.weights[of_row] == pytest.approx([weight / total for _, weight in counted], rel=1e-6, abs=1e-37)


def test_root_bags_weigh_many_values_more_than_one() -> None:
    # [4, 0, 6] has two values: 1 / sqrt(2) each; [0] none; [5] one.
    bags = mean_bags(np.array([4, 0, 6, 0, 5]), offsets_of(np.array([3, 1, 1])), scale=np.sqrt)
    assert bags.values.tolist() == [4, 6, 5]
    assert bags.offsets.tolist() == [0, 2, 2, 3]
    assert bags.weights == pytest.approx([0.5**0.5, 0.5**0.5, 1.0])
    # Importances 3 and 1 over the root of 4; the missing value's counts nowhere.
    assert mean_bags(np.array([1, 2, 0]), np.array([0, 3]), np.array([3.0, 1.0, 100.0]), np.sqrt).weights == pytest.approx(
        [1.5, 0.5]
    )
