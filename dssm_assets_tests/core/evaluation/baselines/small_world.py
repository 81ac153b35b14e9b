"""One hand-made world for all baselines.

Window: u had 3 events on a and 2 on b (b later); v had a and c; w had a, c, d; items e, f have no events.
Events: a 5, b 2, c 2, d 1. Users: a {u, v, w}, b {u}, c {v, w}, d {w}.
"""

from __future__ import annotations

import numpy as np

from dssm_assets.core.config.evaluation import Evaluation
from dssm_assets.core.evaluation.scorer import InteractedItems, Scorer, rank_items
from dssm_assets.core.names import Scope
from dssm_assets_tests.core.evaluation.worlds import fitted_scorers, interactions

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


def scorers(settings: Evaluation | None = None) -> dict[str, Scorer]:
    window, recent, history = (interactions(rows, USERS, ITEMS) for rows in (WINDOW, RECENT, HISTORY))
    return {one.name: one for one in fitted_scorers(window, recent, history, settings or Evaluation())}


def lists(name: str, k: int, scope: Scope = Scope.ALL, settings: Evaluation | None = None) -> dict[str, str]:
    """Returns user -> list of a baseline in a scope, as one string of items."""
    past = InteractedItems(*(interactions(rows, USERS, ITEMS).exclusions for rows in (WINDOW, HISTORY)))
    found = rank_items(scorers(settings)[name], np.arange(len(USERS)), past, k).in_scope(scope)
    assert found.dtype == np.int64
    return {user: "".join(ITEMS[item] for item in row if item >= 0) for user, row in zip(USERS, found.tolist(), strict=True)}
