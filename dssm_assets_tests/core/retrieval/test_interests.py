"""Users with several vectors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.core.retrieval.exact import Corpus, score_interests, search_interests
from dssm_assets.core.retrieval.vectors import Metric
from dssm_assets_tests.core.arrays.item_sets import item_sets

GRID = st.lists(st.integers(-2, 2), min_size=3, max_size=3).filter(any)


@given(
    st.lists(st.lists(GRID, max_size=4), min_size=1, max_size=5).filter(any),
    st.lists(GRID, min_size=1, max_size=12),
    st.integers(1, 15),
    st.sampled_from([Metric.IP, Metric.L2]),
    st.integers(1, 4),
    st.data(),
)
def test_users_of_many_vectors_equal_the_maximum_over_them(
    users: list[list[list[int]]], items: list[list[int]], k: int, metric: Metric, block: int, data: st.DataObject
) -> None:
    banned = [data.draw(st.sets(st.integers(0, len(items) - 1))) for _ in users]
    bounds = np.cumsum([0] + [len(each) for each in users])
    vectors = np.array([vector for each in users for vector in each], np.float32).reshape(-1, 3)
    index, scores = search_interests(
        Corpus(np.array(items), metric), vectors, bounds, k, excluded=item_sets(banned), block_size=block
    )
    for user, without, got, values in zip(users, banned, index.tolist(), scores.tolist(), strict=True):
        best = sorted(
            (-max(score(v, item, metric) for v in user), i) for i, item in enumerate(items) if user and i not in without
        )
        best = best[:k]
        assert got == [i for _, i in best] + [-1] * (k - len(best))
        assert values == [-s for s, _ in best] + [-np.inf] * (k - len(best))


def score(user: list[int], item: list[int], metric: Metric) -> int:
    if metric is Metric.L2:
        return -sum((a - b) ** 2 for a, b in zip(user, item, strict=True))
    return sum(a * b for a, b in zip(user, item, strict=True))


def test_score_of_an_item_is_that_of_the_best_interest() -> None:
    items = np.array([[1, 0], [0, 1], [0.6, 0.8]], np.float32)
    users = np.array([[[1, 0], [0, 1]], [[2, 0], [-1, 0]]], np.float32)
    columns = np.array([[0, 2, 1], [2, 1, 0]])
    found = score_interests(users, items, columns, Metric.IP)
    assert found == pytest.approx(np.array([[1, 0.8, 1], [1.2, 0, 2]]))
    assert score_interests(users, items, columns, Metric.COSINE)[1] == pytest.approx([0.6, 0, 1])
