"""Neighbours times recent popularity, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from dssm_assets.core.evaluation.baselines.item_cooccurrence import LAST_ITEMS, last_item_weights
from dssm_assets_tests.core.evaluation.baselines.small_world import lists


def test_neighbors_times_recent_popularity_by_hand() -> None:
    # Recent events: c 1, d 2, so that c scores 3 ln 2 / ln 3 = 1.893 and d 3 without neighbors.
    # v had c last, before that a and f at one time, which weigh .8: a .816, b .462, c .653, d .707 + .462 = 1.169, the largest.
    # ln(1 + 20 / 1.169 of these): a 2.71, b 2.19, c 2.50, d 3.04; with the values d 6.04, c 4.39, a 2.71, b 2.19.
    # u had b last, before that a and e: a .577, b .462, c .653, d .462, so a 2.93, b 2.72, c 3.04 + 1.89, d 2.72 + 3.
    assert lists("neighbors_recent", 6) == {"n": "dcabef", "u": "dcabef", "v": "dcabef"}
    assert lists("neighbors_recent", 2) == {"n": "dc", "u": "dc", "v": "dc"}


def test_the_last_items_of_a_user_weigh_less_by_place() -> None:
    indptr, times = np.array([0, 4, 4, 5]), np.array([5, 9, 9, 7, 2])
    assert last_item_weights(indptr, times) == pytest.approx([0.8**3, 1, 1, 0.8**2, 1])
    many = last_item_weights(np.array([0, 30]), np.arange(30))
    assert np.flatnonzero(many).tolist() == list(range(30 - LAST_ITEMS, 30))
    assert many[-3] == pytest.approx(0.64)
