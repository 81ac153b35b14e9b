"""Filling up keeps what is ranked, repeats nothing and offers nothing excluded."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dssm_assets.core.arrays.ragged import Exclusions
from dssm_assets.core.evaluation.baselines.fill import fill_up, order_by_events


def test_the_docstring_example() -> None:
    excluded = Exclusions(np.array([0, 1]), np.array([3]))
    order = np.array([3, 7, 5, 0, 1, 2, 4, 6])
    assert fill_up(np.array([[7, -1]]), order, 2, excluded).tolist() == [[7, 5]]


def test_order_is_by_events_then_by_index() -> None:
    assert order_by_events(np.array([1, 5, 0, 5])).tolist() == [1, 3, 0, 2]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_filling_equals_walking_through_both_lists(data: st.DataObject) -> None:
    num_items = data.draw(st.integers(1, 10))
    everything = list(range(num_items))
    order = data.draw(st.permutations(everything))
    ranked = [data.draw(st.permutations(everything))[: data.draw(st.integers(0, num_items))] for _ in range(3)]
    banned = [sorted(data.draw(st.sets(st.sampled_from(everything)))) for _ in range(3)]
    k = data.draw(st.integers(1, 12))
    padded = np.array([row + [-1] * (num_items - len(row)) for row in ranked], dtype=np.int64)
    indptr = np.cumsum([0] + [len(row) for row in banned])
    got = fill_up(
        padded, np.array(order), k, Exclusions(indptr, np.array([item for row in banned for item in row], dtype=np.int64))
    )
    for own, without, result in zip(ranked, banned, got.tolist(), strict=True):
        walked: list[int] = []
        for item in [*own, *order]:
            if item not in without and item not in walked:
                walked.append(item)
        assert result == (walked + [-1] * k)[:k]
