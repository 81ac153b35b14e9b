"""Baseline `ease`: a linear item-to-item model in closed form, from all interactions before the day.

Source: Steck, "Embarrassingly shallow autoencoders for sparse data" (2019), section 3. X is the matrix of users and items, and
P = (X'X + ridge)^-1. The weight of item i for item j is -P[i, j] / P[j, j], and 0 for i = j. A user's score of item j is the
user's row of X times column j of the weights. X holds log(1 + events), so that a habit counts more than a single event.

The model covers the MODEL_ITEMS most popular items of the window. Memory is about 40 bytes times the square of their number;
time grows with its cube. The numbers of users and of other items do not matter.

Shapes: B users of a block, I items, N items of the model, K top-k.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.linalg import lapack
from threadpoolctl import threadpool_limits

from dssm_assets.core.arrays.ordering import take_top, top_k
from dssm_assets.core.arrays.ragged import IntArray
from dssm_assets.core.evaluation.baselines.fit_data import Arrays, FitData
from dssm_assets.core.evaluation.baselines.popularity import fill_up
from dssm_assets.core.evaluation.interactions import Interactions

MODEL_ITEMS: Final = 3000
RIDGE: Final = 1000.0
"""A larger value makes the weights smaller."""


def fit(data: FitData) -> Arrays:
    """Returns the model's items, the weights row by row, and an order of all items to fill up lists."""
    popular = data.popularity_order[:MODEL_ITEMS]
    items = np.sort(popular[data.window_events[popular] > 0])
    weights = data.allocate(len(items) ** 2, np.float32)
    if len(items):
        cooccurrences = np.zeros((len(items), len(items)))  # X'X, summed over users a few at a time
        for interactions in data.read_history():
            users = log_counts(interactions, items).astype(np.float64)
            cooccurrences += (users.T.tocsr() @ users).toarray()
        # Beside other processes two threads take ten times as long; sums depend on their number.
        with threadpool_limits(1, user_api="blas"):
            fit_weights(cooccurrences, weights.reshape(len(items), -1), RIDGE)
    return {"items": items, "weights": weights, "order": data.popularity_order}


def scorer(arrays: Arrays, window: Interactions, history: Interactions) -> EaseScorer:
    items = arrays["items"]
    weights = np.asarray(arrays["weights"]).reshape(len(items), len(items))
    return EaseScorer(log_counts(history, items), items, weights, arrays["order"])


@dataclass(frozen=True)
class EaseScorer:
    """Ranks the model's items with a score above 0, then popular items. Ties go to the lower item_index."""

    users: Any
    """scipy csr float32 [U, N], log(1 + events) of the user on the item."""
    items: IntArray
    """int64 [N], item_index of the model's items, ascending."""
    weights: NDArray[np.float32]
    """float32 [N, N], weight of the row's item for the column's item."""
    order: IntArray
    name: str = "ease"

    def top_items(self, user_rows: IntArray, k: int) -> IntArray:
        scores = np.asarray(self.users[user_rows] @ self.weights)
        found = top_k(np.where(scores > 0, scores, -np.inf), k)
        return fill_up(take_top(self.items[None], found), self.order, k)


def log_counts(interactions: Interactions, items: IntArray) -> Any:
    """Returns log(1 + events) of each user on these items (ascending), csr float32 [V, N]."""
    values, shape = np.log1p(interactions.count).astype(np.float32), (len(interactions.indptr) - 1, interactions.num_items)
    return sp.csr_matrix((values, interactions.item_index, interactions.indptr), shape=shape)[:, items]


def fit_weights(cooccurrences: NDArray[np.float64], weights: NDArray[np.float32], ridge: float) -> None:
    """Computes the items' weights for each other. Changes both matrices in place.

    By hand: X'X = [[2, 1], [1, 1]] with ridge 1. The inverse of [[3, 1], [1, 2]] is [[.4, -.2], [-.2, .6]]. So item 0 has the
    weight .2 / .6 = 1/3 for item 1, and item 1 the weight .2 / .4 = 1/2 for item 0.

    Args:
        cooccurrences: X'X, float64 [N, N]; overwritten.
        weights: float32 [N, N]; receives the weight of each row's item for each column's item.
        ridge: added to the diagonal of X'X.
    """
    cooccurrences[np.diag_indices_from(cooccurrences)] += ridge
    factor, _ = lapack.dpotrf(cooccurrences.T, lower=True, overwrite_a=True)  # .T: LAPACK wants columns, and it is symmetric
    lower, _ = lapack.dpotri(factor, lower=True, overwrite_c=True)
    inverse = np.tril(lower) + np.tril(lower, -1).T
    np.divide(-inverse, inverse.diagonal(), out=weights, casting="same_kind")
    np.fill_diagonal(weights, 0)
