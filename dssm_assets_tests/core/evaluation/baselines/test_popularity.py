"""Baselines without a model by hand: popular items, growing ones and the user's own; popular items fill lists up."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.core.config.evaluation import Evaluation
from dssm_assets.core.evaluation.baselines import trend
from dssm_assets.core.evaluation.baselines.popularity import fill_up, order_by_category
from dssm_assets.core.names import Scope
from dssm_assets.testing import fit_data
from dssm_assets_tests.core.evaluation.baselines.small_world import ITEMS, USERS, WINDOW, lists
from dssm_assets_tests.core.evaluation.worlds import interactions


@pytest.mark.parametrize(
    ("name", "k", "scope", "expected"),
    [
        ("popularity", 4, Scope.ALL, {"n": "abcd", "u": "abcd", "v": "abcd"}),  # b before c: equal events, lower index
        ("popularity", 9, Scope.ALL, {"n": "abcdef", "u": "abcdef", "v": "abcdef"}),
        ("popularity", 3, Scope.DISCOVERY, {"n": "abc", "u": "cde", "v": "bde"}),
        ("recent_popularity", 3, Scope.ALL, {"n": "dca", "u": "dca", "v": "dca"}),
        ("own_history_window", 4, Scope.ALL, {"n": "abcd", "u": "abcd", "v": "cabd"}),  # v: equal counts, c is later
        ("own_history_window", 1, Scope.ALL, {"n": "a", "u": "a", "v": "c"}),
        ("own_history_window", 2, Scope.DISCOVERY, {"n": "ab", "u": "cd", "v": "bd"}),
        # u: a, e, f three times each: a and e at time 1 (lower index first), f earlier; then b. v: c late, then a before f.
        ("own_history_all", 4, Scope.ALL, {"n": "abcd", "u": "aefb", "v": "cafb"}),
        ("own_history_all", 6, Scope.DISCOVERY, {"n": "abcdef", "u": "efcd", "v": "fbde"}),
        ("own_history_all", 6, Scope.UNSEEN, {"n": "abcdef", "u": "cd", "v": "bde"}),
    ],
)
def test_lists_by_hand(name: str, k: int, scope: Scope, expected: dict[str, str]) -> None:
    assert lists(name, k, scope) == expected


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
    assert fill_up(padded, np.zeros(0, np.int64), k)[0].tolist() == ([*ranked[0], *[-1] * k])[:k]


def test_items_of_the_most_popular_category_come_first() -> None:
    categories, events = np.array([1, 0, 1, 1, -1]), np.array([5, 0, 0, 0, 0])
    assert order_by_category(np.array([1, 2, 3, 4]), categories, events).tolist() == [2, 3, 1, 4]
    assert order_by_category(np.array([2, 0]), np.full(3, -1), np.zeros(3)).tolist() == [2, 0]


def test_items_that_grow_come_first_by_hand() -> None:
    window = interactions(WINDOW, USERS, ITEMS)  # events: a 5, b 2, c 2, d 1
    weeks = {7: np.array([1, 2, 2, 1, 0, 0]), 14: np.array([5, 3, 2, 1, 0, 0])}
    data = replace(fit_data(window, window, window, Evaluation()), read_item_events=weeks.__getitem__)
    # a 1 * 2 / 5, b 2 * 3 / 2, c 2 * 3 / 1, d 1 * 2 / 1; e and f 0, by index
    scorer = trend.scorer(trend.fit(data), window, window)
    assert scorer.top_items(np.arange(2), 6).tolist() == [[2, 1, 3, 0, 4, 5]] * 2
