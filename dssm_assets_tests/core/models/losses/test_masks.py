"""Pairs that do not count, by hand and against brute force."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.core.models.losses.masks import MaskedPairs, diagonal_pairs, matching_pairs, of_members, union_of


def test_same_item_in_batch_and_sampled() -> None:
    # Batch items 7, 8, 7; sampled 8, 9: rows 0 and 2 collide with each other, row 1 with the first sampled column.
    pairs = matching_pairs(np.arange(3), np.array([7, 8, 7]), np.array([7, 8, 7, 8, 9]))
    assert list(zip(pairs.rows.tolist(), pairs.columns.tolist(), strict=True)) == [
        (0, 0),
        (0, 2),
        (1, 1),
        (1, 3),
        (2, 0),
        (2, 2),
    ]


def test_item_outside_the_corpus_matches_no_column() -> None:
    assert len(matching_pairs(np.array([0]), np.array([-1]), np.array([0, 1])).rows) == 0


def test_union_is_sorted_by_row() -> None:
    both = union_of(diagonal_pairs(2), matching_pairs(np.array([0]), np.array([5]), np.array([4, 5])))
    assert both.rows.tolist() == [0, 0, 1]
    assert both.columns.tolist() == [0, 1, 1]


@given(
    known=st.lists(st.lists(st.integers(-1, 5), max_size=6), min_size=1, max_size=5),
    columns=st.lists(st.integers(0, 5), max_size=8),
)
def test_pairs_equal_brute_force(known: list[list[int]], columns: list[int]) -> None:
    rows = np.repeat(np.arange(len(known)), [len(items) for items in known])
    items = np.array([item for row in known for item in row], np.int64)
    pairs = matching_pairs(rows, items, np.array(columns, np.int64))
    expected = {(i, j) for i, row in enumerate(known) for j, column in enumerate(columns) if column in row}
    assert set(zip(pairs.rows.tolist(), pairs.columns.tolist(), strict=True)) == expected


def test_rows_share_the_cells_of_their_group() -> None:
    cells = MaskedPairs(np.array([0, 1, 1]), np.array([5, 7, 8]))
    found = of_members(cells, np.array([1, 0, 1]), 3)
    assert list(zip(found.rows.tolist(), found.columns.tolist(), strict=True)) == [(0, 7), (0, 8), (1, 5), (2, 7), (2, 8)]
    assert not len(of_members(cells, np.array([2, 2]), 3).rows)
