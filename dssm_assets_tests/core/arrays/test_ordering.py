"""Entries by value, equal ones by place, against a sort of Python."""

from __future__ import annotations

from random import Random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.core.arrays.ordering import find_best, list_largest, order_largest, sort_with_places

# Few different values, so that most rows have equal ones, also across the cut.
some_values = st.sampled_from([-1.5, 0.0, 2.0, np.inf, -np.inf])


@given(st.lists(st.integers(0, 1 << 40) | st.integers(0, 3), max_size=40))
def test_numbers_are_sorted_with_their_places(values: list[int]) -> None:
    ascending, places = sort_with_places(np.array(values, np.int64))
    assert list(zip(ascending.tolist(), places.tolist(), strict=True)) == sorted(zip(values, range(len(values)), strict=True))


def test_large_numbers_of_32_bits_are_sorted_with_their_places() -> None:
    ascending, places = sort_with_places(np.array([2**31 - 1, 5, 2**30], np.int32))
    assert (ascending.tolist(), places.tolist()) == ([5, 2**30, 2**31 - 1], [1, 2, 0])


@given(st.integers(0, 40).flatmap(lambda n: st.lists(st.lists(some_values, min_size=n, max_size=n), min_size=1, max_size=3)))
def test_order_is_that_of_a_stable_sort(rows: list[list[float]]) -> None:
    for k in (1, 3, 50):
        found = order_largest(np.array(rows), k)
        assert found.shape == (len(rows), min(k, len(rows[0])))
        for row, places in zip(rows, found.tolist(), strict=True):
            expected = sorted(range(len(row)), key=lambda place: (-row[place], place))[:k]
            finite = sum(value > -np.inf for value in row)
            assert places[:finite] == expected[:finite]
            assert len(set(places)) == len(places)


def test_rows_of_different_lengths_by_hand() -> None:
    found = list_largest([2, 0, 3], np.array([5, 9, 4, 8, 6]), np.array([1.0, 2.0, 7.0, 7.0, 8.0]), 2)
    assert found.tolist() == [[9, 5], [-1, -1], [6, 4]]


@given(st.lists(st.sampled_from([0.0, -1.0, 0.5, 2.0]), max_size=12), st.integers(1, 14), st.randoms())
def test_best_scores_above_zero_are_found_and_ties_go_to_the_lower_column(scores: list[float], k: int, random: Random) -> None:
    columns = random.sample(range(100), len(scores))
    expected = sorted((i for i, score in enumerate(scores) if score > 0), key=lambda i: (-scores[i], columns[i]))[:k]
    assert find_best(np.array(columns, np.int32), np.array(scores), k).tolist() == expected
