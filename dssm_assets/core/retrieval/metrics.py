"""How two vectors are compared, and the one definition of their score.

Belongs here: the metrics and scores of given pairs. Does not belong here: which pairs are worth scoring (`coarse.py`,
`exact.py`).

The score of a pair is the float32 nearest to a sum over dimensions, taken in float64, dimension by dimension:
inner product and cosine sum the products (for cosine both vectors have unit length), L2 sums the squared differences and
the score is minus that sum, so that more is better under every metric. A matrix product in float32 depends in its last
bits on blocks and threads; this sum does not.

Shapes: U users, I items, D vector dimension, P pairs.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dssm_assets.core.config.model import Similarity

Floats = NDArray[np.float64]
PAIRS_AT_ONCE = 1024
"""Pairs whose vectors lie side by side in the processor's cache."""


class Metric(StrEnum):
    """How two vectors are compared."""

    IP = "ip"
    """Inner product."""
    COSINE = "cosine"
    """Inner product of the vectors brought to unit length."""
    L2 = "l2"
    """Minus the squared distance."""

    @classmethod
    def of(cls, similarity: Similarity | Metric) -> Metric:
        """Returns the metric of what two towers were trained with."""
        if isinstance(similarity, Metric):
            return similarity
        return cls.COSINE if similarity is Similarity.COSINE else cls.IP


def pair_scores(
    users: NDArray[np.float32], items: NDArray[np.float32], rows: NDArray[Any], columns: NDArray[Any], metric: Metric
) -> NDArray[np.float32]:
    """Returns float32 [P], the score of user rows[p] and item columns[p].

    Args:
        users: float32 [U, D], of unit length for cosine.
        items: float32 [I, D], of unit length for cosine.
        rows: [P], row of the pair's user.
        columns: [P], row of the pair's item.
        metric: how they are compared.
    """
    total = np.empty(len(rows), dtype=np.float64)
    for start in range(0, len(rows), PAIRS_AT_ONCE):
        part = slice(start, start + PAIRS_AT_ONCE)
        of_items = items[columns[part]].T.astype(np.float64, order="C")  # [D, P]: the sum then runs over D in order
        np.add.reduce(_terms(of_items, users[rows[part]].T, metric), axis=0, out=total[part])
    return _rounded(total, metric)


def all_scores(users: NDArray[np.float32], by_dimension: NDArray[np.float32], metric: Metric) -> NDArray[np.float32]:
    """Returns float32 [U, I], the scores of every pair by the same definition.

    Args:
        users: float32 [U, D].
        by_dimension: float32 [D, I], the items.
        metric: how they are compared.
    """
    total = np.zeros((len(users), by_dimension.shape[1]), dtype=np.float64)
    for dimension, values in enumerate(by_dimension):
        total += _terms(np.repeat(values[None, :].astype(np.float64), len(users), axis=0), users[:, dimension, None], metric)
    return _rounded(total, metric)


def _rounded(total: Floats, metric: Metric) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # beyond float32 lies infinity
        return (-total if metric is Metric.L2 else total).astype(np.float32)


def _terms(of_items: Floats, of_users: NDArray[np.float32], metric: Metric) -> Floats:
    """Returns the terms of the sums, written over of_items."""
    if metric is Metric.L2:
        of_items -= of_users
        return np.multiply(of_items, of_items, out=of_items)
    return np.multiply(of_items, of_users, out=of_items)
