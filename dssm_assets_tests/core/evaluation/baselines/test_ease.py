"""EASE by hand and against its definition with dense matrices; memory that does not depend on the ranges of users."""

from __future__ import annotations

import numpy as np
import pytest

from dssm_assets.core.evaluation.baselines import ease
from dssm_assets.core.evaluation.baselines.ease import fit_weights
from dssm_assets.core.names import Scope
from dssm_assets_tests.core.evaluation.baselines.small_world import HISTORY, ITEMS, USERS, lists
from dssm_assets_tests.core.evaluation.worlds import interactions


def weights_of(together: list[list[float]], ridge: float) -> np.ndarray:
    weights = np.full((len(together), len(together)), 9, np.float32)
    fit_weights(np.array(together, dtype=np.float64), weights, ridge)
    return weights


def test_weights_equal_the_inverse() -> None:
    rows = np.random.default_rng(1).integers(0, 3, (20, 8)).astype(np.float64)
    inverse = np.linalg.inv(rows.T @ rows + 2 * np.eye(8))
    expected = -inverse / np.diag(inverse)
    np.fill_diagonal(expected, 0)
    assert weights_of((rows.T @ rows).tolist(), 2) == pytest.approx(expected, rel=1e-5, abs=1e-6)


def dense_lists(ridge: float, covered: str, known: dict[str, str], k: int) -> dict[str, str]:
    """Returns the lists by the definition: X over the covered items, popularity order abcdef, items to leave out per user."""
    users = [*USERS, "w"]
    x = np.zeros((4, 6))
    for user, item, count, _ in HISTORY:
        x[users.index(user), ITEMS.index(item)] = np.log1p(count)
    columns = [ITEMS.index(item) for item in covered]
    x = x[:, columns]
    inverse = np.linalg.inv(x.T @ x + ridge * np.eye(len(columns)))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    found = {}
    for row, user in enumerate(USERS):
        scores = dict(zip(covered, x[row] @ weights, strict=True))
        ranked = [item for item in sorted(scores, key=lambda item: (-scores[item], item)) if scores[item] > 0]
        ranked += [item for item in ITEMS if item not in ranked]
        found[user] = "".join(item for item in ranked if item not in known.get(user, ""))[:k]
    return found


@pytest.mark.parametrize("ridge", [0.5, 20])
def test_lists_equal_the_definition(monkeypatch: pytest.MonkeyPatch, ridge: float) -> None:
    # e and f have no event in the window, so EASE does not cover them; they come last, by popularity.
    monkeypatch.setattr(ease, "RIDGE", ridge)
    assert lists("ease", 6) == dense_lists(ridge, "abcd", {}, 6)
    known = {"u": "abef", "v": "acf"}
    assert lists("ease", 6, Scope.UNSEEN) == dense_lists(ridge, "abcd", known, 6)
    monkeypatch.setattr(ease, "MODEL_ITEMS", 2)
    assert lists("ease", 4) == dense_lists(ridge, "ab", {}, 4)


def test_an_empty_window_gives_popularity() -> None:
    nothing = interactions([], USERS, ITEMS)
    scorer = ease.scorer(
        {"items": np.zeros(0, np.int64), "weights": np.zeros(0, np.float32), "order": np.arange(6)}, nothing, nothing
    )
    assert scorer.top_items(np.array([1]), 3).tolist() == [[0, 1, 2]]
