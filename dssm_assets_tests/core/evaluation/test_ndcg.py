"""NDCG by hand, and against its definition as a sum over places."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.core.evaluation.hits import user_ndcg


def test_ndcg_by_hand() -> None:
    # User 0: two items, one second in the list, one missed. User 1: one item, first. User 2: no truth. User 3: third, k is 2.
    users, ranks, counts = np.array([0, 0, 1, 3]), np.array([1, 9, 0, 2]), np.array([2, 1, 0, 1])
    second = 1 / math.log2(3)
    assert user_ndcg(users, ranks, counts, 3)[[0, 1, 3]] == pytest.approx([second / (1 + second), 1, 0.5])
    assert user_ndcg(users, ranks, counts, 2)[[0, 1, 3]] == pytest.approx([second / (1 + second), 1, 0])
    assert np.isnan(user_ndcg(users, ranks, counts, 3)[2])
    # Three items to find among the first 2 places: the ideal has only two.
    assert user_ndcg(np.zeros(3, np.int64), np.array([0, 1, 2]), np.array([3]), 2).tolist() == [1]


@given(st.lists(st.booleans(), min_size=1, max_size=9), st.integers(0, 4), st.integers(1, 9))
def test_ndcg_equals_the_sum_over_places(places: list[bool], missed: int, k: int) -> None:
    ranks = [place for place, is_wanted in enumerate(places) if is_wanted] + [99] * missed
    if not ranks:
        return
    gained = sum(1 / math.log2(place + 2) for place, is_wanted in enumerate(places[:k]) if is_wanted)
    ideal = sum(1 / math.log2(place + 2) for place in range(min(k, len(ranks))))
    found = user_ndcg(np.zeros(len(ranks), np.int64), np.array(ranks), np.array([len(ranks)]), k)
    assert found == pytest.approx([gained / ideal])
