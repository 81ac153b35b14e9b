"""Own history, in the window or of all days: count, then time, then index; popular items after."""

from __future__ import annotations

from dssm_assets.core.evaluation.scopes import Scope
from dssm_assets_tests.core.evaluation.baselines.small_world import lists


def test_own_history_in_the_window_by_hand() -> None:
    assert lists("own_history_window", 4) == {"n": "abcd", "u": "abcd", "v": "cabd"}  # v: equal counts, c is later
    assert lists("own_history_window", 1) == {"n": "a", "u": "a", "v": "c"}
    assert lists("own_history_window", 2, Scope.DISCOVERY) == {"n": "ab", "u": "cd", "v": "bd"}


def test_own_whole_history_by_hand() -> None:
    # u: a, e, f three times each: a and e at time 1 (lower index first), f earlier; then b. v: c late, then a before f.
    assert lists("own_history_all", 4) == {"n": "abcd", "u": "aefb", "v": "cafb"}
    assert lists("own_history_all", 6, Scope.DISCOVERY) == {"n": "abcdef", "u": "efcd", "v": "fbde"}
    assert lists("own_history_all", 6, Scope.UNSEEN) == {"n": "abcdef", "u": "cd", "v": "bde"}
