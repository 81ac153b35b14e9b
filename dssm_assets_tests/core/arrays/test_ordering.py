"""Entries by value, equal ones by place, against a sort of Python."""

from __future__ import annotations

import tracemalloc
from random import Random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.core.arrays.ordering import sort_with_positions, take_top, top_k, top_of_rows

# Few different values, so that most rows have equal ones, also across the cut.
some_values = st.sampled_from([-1.5, 0.0, 2.0, np.inf, -np.inf])


@given(st.lists(st.integers(0, 1 << 40) | st.integers(0, 3), max_size=40))
def test_numbers_are_sorted_with_their_places(values: list[int]) -> None:
    ascending, positions = sort_with_positions(np.array(values, np.int64))
    assert list(zip(ascending.tolist(), positions.tolist(), strict=True)) == sorted(
        zip(values, range(len(values)), strict=True)
    )


def test_large_numbers_of_32_bits_are_sorted_with_their_places() -> None:
    ascending, positions = sort_with_positions(np.array([2**31 - 1, 5, 2**30], np.int32))
    assert (ascending.tolist(), positions.tolist()) == ([5, 2**30, 2**31 - 1], [1, 2, 0])


@given(
    st.integers(0, 40).flatmap(lambda n: st.lists(st.lists(some_values, min_size=n, max_size=n), min_size=1, max_size=3)),
    st.randoms(),
)
def test_the_largest_values_are_those_of_a_stable_sort(rows: list[list[float]], random: Random) -> None:
    ids = [random.sample(range(100), len(row)) for row in rows]
    for k in (1, 3, 50):
        for given_ids in (None, np.array(ids, np.int32)):
            found = top_k(np.array(rows), k, given_ids)
            for row, own, positions in zip(rows, ids, found.tolist(), strict=True):
                ties = range(len(row)) if given_ids is None else own
                entries = [place for place in range(len(row)) if row[place] > -np.inf]
                expected = sorted(entries, key=lambda place, row=row, ties=ties: (-row[place], ties[place]))[:k]
                assert positions == expected + [-1] * (k - len(expected))


def test_rows_of_different_lengths_by_hand() -> None:
    found = top_of_rows([2, 0, 3], np.array([5, 9, 4, 8, 6]), np.array([1.0, 2.0, 7.0, 7.0, 8.0]), 2)
    assert found.tolist() == [[9, 5], [-1, -1], [6, 4]]
    assert top_of_rows([3], np.array([7, 2, 5]), np.array([1.0, 1.0, -np.inf]), 4).tolist() == [[2, 7, -1, -1]]
    assert top_of_rows([0], np.zeros(0, int), np.zeros(0), 2).tolist() == [[-1, -1]]


def test_a_long_row_does_not_widen_the_others() -> None:
    lengths = [100_000, *[3] * 200]  # 161 MB as one table
    entries = np.concatenate([np.arange(one) for one in lengths])
    tracemalloc.start()
    found = top_of_rows(lengths, entries, entries.astype(float), 2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found[[0, 1, 200]].tolist() == [[99_999, 99_998], [2, 1], [2, 1]]
    assert peak < 20e6


def test_what_is_missing_is_named() -> None:
    assert take_top(np.array([[1.5, 2.5]]), np.array([[1, -1]]), -np.inf).tolist() == [[2.5, -np.inf]]
