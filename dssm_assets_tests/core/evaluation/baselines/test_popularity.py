"""Popularity, of the window or of its last days: most events first, the same list for all users."""

from __future__ import annotations

from dssm_assets.core.evaluation.scopes import Scope
from dssm_assets_tests.core.evaluation.baselines.small_world import USERS, lists


def test_popularity_by_hand() -> None:
    assert lists("popularity", 4) == dict.fromkeys(USERS, "abcd")  # b before c: equal events, lower index
    assert lists("popularity", 3, Scope.DISCOVERY) == {"n": "abc", "u": "cde", "v": "bde"}


def test_popularity_lists_end_with_the_corpus() -> None:
    assert lists("popularity", 9) == dict.fromkeys(USERS, "abcdef")


def test_recent_popularity_by_hand() -> None:
    assert lists("recent_popularity", 3) == dict.fromkeys(USERS, "dca")
