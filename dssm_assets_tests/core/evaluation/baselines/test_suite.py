"""Every baseline on one hand-made world.

Window: u took a 3 times and b twice (b later); v took a and c; w took a, c, d; items e, f are never taken.
Events: a 5, b 2, c 2, d 1. Users: a {u, v, w}, b {u}, c {v, w}, d {w}.
"""

from __future__ import annotations

import numpy as np
import pytest

from dssm_assets.core.config.evaluation import Evaluation
from dssm_assets.core.evaluation.baselines.item_cooccurrence import fit_item_cooccurrence
from dssm_assets.core.evaluation.baselines.suite import fit_baselines
from dssm_assets.core.evaluation.scorer import Scorer, ScorerName
from dssm_assets_tests.core.evaluation.worlds import interactions

ITEMS = ["a", "b", "c", "d", "e", "f"]
USERS = ["n", "u", "v"]
WINDOW = [
    ("u", "a", 3, 1),
    ("u", "b", 2, 9),
    ("v", "a", 1, 3),
    ("v", "c", 1, 4),
    ("w", "a", 1, 1),
    ("w", "c", 1, 1),
    ("w", "d", 1, 1),
]
RECENT = [("v", "c", 1, 4), ("w", "d", 2, 4)]
HISTORY = [*WINDOW, ("u", "f", 3, 0), ("u", "e", 3, 1), ("v", "f", 1, 3)]


def scorers() -> dict[str, Scorer]:
    window, recent, history = (interactions(rows, USERS, ITEMS) for rows in (WINDOW, RECENT, HISTORY))
    return {one.name: one for one in fit_baselines(window, recent, history, Evaluation())}


def lists(scorer: Scorer, k: int, *, discovery: bool = False) -> dict[str, str]:
    rows = np.arange(len(USERS))
    excluded = interactions(WINDOW, USERS, ITEMS).exclusions(len(USERS)) if discovery else None
    found = scorer.top_items(rows, k, excluded)
    assert found.dtype == np.int64
    return {user: "".join(ITEMS[item] for item in row if item >= 0) for user, row in zip(USERS, found.tolist(), strict=True)}


def test_every_baseline_is_there() -> None:
    assert set(scorers()) == set(ScorerName) - {ScorerName.MODEL}


def test_popularity() -> None:
    scorer = scorers()["popularity"]
    assert lists(scorer, 4) == dict.fromkeys(USERS, "abcd")  # b before c: equal events, lower index
    assert lists(scorer, 3, discovery=True) == {"n": "abc", "u": "cde", "v": "bde"}


def test_recent_popularity() -> None:
    assert lists(scorers()["recent_popularity"], 3) == dict.fromkeys(USERS, "dca")


def test_own_history_in_the_window() -> None:
    scorer = scorers()["own_history_window"]
    assert lists(scorer, 4) == {"n": "abcd", "u": "abcd", "v": "cabd"}  # v: equal counts, c is later
    assert lists(scorer, 2, discovery=True) == {"n": "ab", "u": "cd", "v": "bd"}


def test_own_history_of_all_time() -> None:
    # u: a, e, f three times each: a and e at time 1 (lower index first), f earlier; then b. v: c late, then a before f.
    scorer = scorers()["own_history_all"]
    assert lists(scorer, 4) == {"n": "abcd", "u": "aefb", "v": "cafb"}
    assert lists(scorer, 6, discovery=True) == {"n": "abcdef", "u": "efcd", "v": "fbde"}


def test_item_cooccurrence() -> None:
    # Similarities: a-b 1/sqrt(3) = .577, a-c 2/sqrt(6) = .816, a-d 1/sqrt(3) = .577, c-d 1/sqrt(2) = .707.
    # u has {a, b}: c .816, then a, b, d .577 each by index. v has {a, c}: d 1.285, a .816, c .816, b .577.
    scorer = scorers()["item_cooccurrence"]
    assert lists(scorer, 6) == {"n": "abcdef", "u": "cabdef", "v": "dacbef"}
    assert lists(scorer, 3, discovery=True) == {"n": "abc", "u": "cde", "v": "dbe"}


def test_item_cooccurrence_keeps_the_nearest_neighbours_only() -> None:
    window = interactions(WINDOW, USERS, ITEMS)
    scorer = fit_item_cooccurrence(window, 1, np.arange(6))
    nearest = {ITEMS[row]: ITEMS[column] for row, column in zip(*scorer.neighbors.nonzero(), strict=True)}
    assert nearest == {"a": "c", "b": "a", "c": "a", "d": "c"}
    assert scorer.neighbors[0, 2] == pytest.approx(2 / np.sqrt(6))


def test_blocks_of_users_change_nothing() -> None:
    for scorer in scorers().values():
        whole = scorer.top_items(np.arange(3), 5, None)
        single = [scorer.top_items(np.array([row]), 5, None)[0].tolist() for row in range(3)]
        assert whole.tolist() == single


def test_of_a_user_the_last_items_count_as_taken_together() -> None:
    # u took a, b, c at times 1, 2, 3; v took a and b.
    rows = [("u", "a", 1, 1), ("u", "b", 1, 2), ("u", "c", 1, 3), ("v", "a", 1, 1), ("v", "b", 1, 2)]
    window = interactions(rows, ["u", "v"], ["a", "b", "c"])
    whole = fit_item_cooccurrence(window, 5, np.arange(3)).neighbors.toarray()
    # Of the last two of each: u has {b, c}, v has {a, b}; b is taken twice, a and c once.
    cut = fit_item_cooccurrence(window, 5, np.arange(3), most_items=2).neighbors.toarray()
    assert whole[0, 1] == pytest.approx(1.0)
    assert cut == pytest.approx(np.array([[0, 2**-0.5, 0], [2**-0.5, 0, 2**-0.5], [0, 2**-0.5, 0]]))


def test_blocks_of_items_change_no_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    window = interactions(WINDOW, USERS, ITEMS)
    whole = fit_item_cooccurrence(window, 2, np.arange(6)).neighbors.toarray()
    monkeypatch.setattr("dssm_assets.core.evaluation.baselines.item_cooccurrence.FIT_PAIRS", 1)
    assert fit_item_cooccurrence(window, 2, np.arange(6)).neighbors.toarray().tolist() == whole.tolist()
