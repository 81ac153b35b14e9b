"""Filling up keeps the ranked items and repeats none."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.core.evaluation.baselines.fill import fill_up, order_by_events


def test_fill_up_example_of_the_docstring() -> None:
    assert fill_up(np.array([[7, -1]]), np.array([3, 7, 5, 0, 1, 2, 4, 6]), 3).tolist() == [[7, 3, 5]]


def test_order_by_events_breaks_ties_by_index() -> None:
    assert order_by_events(np.array([1, 5, 0, 5])).tolist() == [1, 3, 0, 2]


@given(st.data())
def test_fill_up_equals_walking_through_both_lists(data: st.DataObject) -> None:
    num_items = data.draw(st.integers(1, 10))
    everything = list(range(num_items))
    order = data.draw(st.permutations(everything))
    ranked = [data.draw(st.permutations(everything))[: data.draw(st.integers(0, num_items))] for _ in range(3)]
    k = data.draw(st.integers(1, 12))
    padded = np.array([row + [-1] * (num_items - len(row)) for row in ranked], dtype=np.int64)
    for own, result in zip(ranked, fill_up(padded, np.array(order), k).tolist(), strict=True):
        walked = list(dict.fromkeys([*own, *order]))
        assert result == (walked + [-1] * k)[:k]
