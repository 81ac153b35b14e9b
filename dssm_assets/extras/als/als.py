"""Baseline `als`: matrix factorisation for implicit feedback, fitted to all interactions before the day.

Source: Hu, Koren, Volinsky, "Collaborative filtering for implicit feedback datasets" (2008), computed by the library `implicit`
(extra `als`). An observed pair has confidence 1 + log(1 + events).

Fitted only if `evaluation.extra_baselines` names it. The fit needs the pairs of all users and days in memory, 8 bytes each,
and the factors of all users and items.

Shapes: U evaluated users, B users of a block, I items, N items with events, F factors, K top-k.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from dssm_assets.core.arrays.ragged import IntArray
from dssm_assets.core.errors import ConfigError, Fault
from dssm_assets.core.evaluation.baselines.ease import log_counts
from dssm_assets.core.evaluation.baselines.fit_data import Arrays, FitData
from dssm_assets.core.evaluation.baselines.popularity import fill_up
from dssm_assets.core.evaluation.interactions import Interactions
from dssm_assets.core.retrieval.exact import Corpus, search
from dssm_assets.core.retrieval.vectors import Metric

Factors = NDArray[np.float32]
FACTORS: Final = 128
RIDGE: Final = 30.0
ITERATIONS: Final = 10


def fit(data: FitData) -> Arrays:
    """Returns the items with events, their factors row by row, and an order of all items to fill up lists."""
    model = _new_model(data.seed)
    everything = np.arange(len(data.window_events))
    users = sp.vstack([log_counts(part, everything) for part in data.read_history()], format="csr")
    items = np.flatnonzero(np.bincount(users.indices, minlength=len(everything)))
    factors = data.allocate(len(items) * FACTORS, np.float32)
    if len(items):
        model.fit(_add_confidence(users[:, items]), show_progress=False)
        factors[:] = np.asarray(model.item_factors, np.float32).ravel()
    return {"items": items, "factors": factors, "order": data.popularity_order}


def scorer(arrays: Arrays, window: Interactions, history: Interactions) -> AlsScorer:
    """Returns the scorer for the users of the history. Their factors are solved from the items' factors, as in the fit."""
    items = arrays["items"]
    factors = np.array(arrays["factors"]).reshape(len(items), FACTORS)
    events = log_counts(history, items)
    users = np.zeros((events.shape[0], FACTORS), np.float32)
    known = np.flatnonzero(np.diff(events.indptr))
    if len(known):
        model = _new_model()
        model.item_factors = factors
        users[known] = model.recalculate_user(np.arange(len(known)), _add_confidence(events[known]))
    return AlsScorer(users, items, Corpus(factors, Metric.IP), arrays["order"])


def _add_confidence(events: Any) -> Any:
    """Returns csr of the confidences 1 + log(1 + events), because the library does not compute them."""
    return sp.csr_matrix((1 + events.data, events.indices, events.indptr), shape=events.shape)


def check_library() -> None:
    """Raises a ConfigError if the library is not installed."""
    try:
        import implicit.cpu.als  # noqa: F401
    except ImportError:
        remedy = "run pip install 'dssm-assets[als]', or remove als from evaluation.extra_baselines"
        raise ConfigError(Fault("baseline als", "the package implicit", "not installed", remedy)) from None


def _new_model(seed: int = 0) -> Any:
    from implicit.cpu.als import AlternatingLeastSquares

    return AlternatingLeastSquares(
        factors=FACTORS, regularization=RIDGE, alpha=1.0, iterations=ITERATIONS, random_state=seed, num_threads=1
    )


@dataclass(frozen=True)
class AlsScorer:
    """Ranks items by the inner product of user and item factors. A user without history gets popular items."""

    users: Factors
    """float32 [U, F]; zeros for a user without history."""
    items: IntArray
    """int64 [N], item_index of the items with events, ascending."""
    corpus: Corpus
    """Factors of these items, float32 [N, F]."""
    order: IntArray
    name: str = "als"

    def top_items(self, user_rows: IntArray, k: int) -> IntArray:
        ranked = np.full((len(user_rows), min(k, len(self.items))), -1, dtype=np.int64)
        known = np.flatnonzero(self.users[user_rows].any(axis=1))
        if len(known):
            place, _ = search(self.corpus, self.users[user_rows[known]], ranked.shape[1])
            ranked[known] = np.where(place >= 0, self.items[place], -1)
        return fill_up(ranked, self.order, k)
