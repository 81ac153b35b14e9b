"""Neighbours of items, whose scores can be added to those of vectors: what follows an item, or what goes with it.

Of sequences the score of item j after item i is the sum, over lines, of how soon j comes after i:

    c(i, j) = sum of exp(-(events between) / DECAY),   w(i, j) = c(i, j) / sqrt((n(i) + SHRINK) (m(j) + SHRINK))

with n and m the sums of c over rows and columns. A user's score of j is the sum of w(i, j) over its last items, by the
same decay. Of a graph, whose lines have no order, c is the sum over users that have both of 1 / sqrt(number of items).

Such a matrix has as many columns as there are items, and products of short vectors can not hold it (of rank 256 nothing is
gained): it is the channel of item-to-item beside the vectors.

Belongs here: the matrix and scores by it. Does not belong here: whether they are added (`quality_choice.py`), how strongly
(`quality_text_settings.py`).

Letters: U users, I items, B users of a block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from dssm_assets.core.arrays.ragged import ranges
from dssm_assets_tests.benchmarks.quality_scores import ByScores, ByVectors, Recommender
from dssm_assets_tests.benchmarks.quality_splits import Ints, Split

DECAY: Final = 2.0
"""Events after which an item counts e times less."""
WINDOW: Final = 20
"""Events before an item that it is counted after."""
SHRINK: Final = 3.0
KEPT: Final = 500
"""Neighbours of an item."""
_SAMPLE = 400
_BLOCK = 2048


@dataclass(frozen=True)
class Neighbours:
    """Scores by neighbours.

    Attributes:
        users: the weight of each item of a user, csr [U, I].
        weights: w, csr [I, I].
    """

    users: sp.csr_matrix
    weights: sp.csr_matrix

    def scores(self, users: Ints) -> npt.NDArray[np.float32]:
        """Returns the scores of all items [B, I]."""
        return np.asarray((self.users[users] @ self.weights).toarray(), np.float32)


def find_neighbours(split: Split, *, is_ordered: bool, score_std: float) -> Neighbours:
    """Returns the neighbours of a training part.

    Args:
        split: a user's events are in the order of their times.
        is_ordered: the order means something.
        score_std: deviation of a user's scores over all items, mean over users.
    """
    order, bounds = split.by_user()
    items, lengths = split.item[order], np.diff(bounds)
    shape = (len(lengths), len(split.item_ids))
    owner = np.repeat(np.arange(len(lengths)), lengths)
    if is_ordered:
        places = ranges(np.zeros(len(lengths), np.int64), lengths)
        counts = _following(items, places, shape[1])
        from_end = np.repeat(lengths, lengths) - 1 - places
        kept = from_end < WINDOW
        users = sp.csr_matrix((np.exp(-from_end[kept] / DECAY), (owner[kept], items[kept])), shape)
    else:
        users = sp.csr_matrix((np.ones(len(items)), (owner, items)), shape)
        users.data[:] = 1.0  # of a repeated event, too
        counts = _common(users)
    weights = _normalised(counts)
    sample = np.unique(np.linspace(0, shape[0] - 1, min(shape[0], _SAMPLE)).astype(np.int64))
    std = float((users[sample] @ weights).toarray().std(axis=1).mean())
    return Neighbours(users.astype(np.float32), (weights * (score_std / max(std, 1e-9))).astype(np.float32))


def add_neighbours(vectors: ByVectors, neighbours: Neighbours | None) -> Recommender:
    """Returns the recommender whose scores are the sum of both; without neighbours the vectors."""
    if neighbours is None:
        return vectors
    return ByScores(lambda users: vectors.users[users] @ vectors.items.T + neighbours.scores(users))


def _following(items: Ints, places: Ints, num_items: int) -> sp.csr_matrix:
    """Returns c of sequences: events by user, and the place of each in its line."""
    before = np.minimum(places, WINDOW)
    gaps = ranges(np.zeros(len(before), np.int64), before)  # 0: the event just before
    later = np.repeat(np.arange(len(items)), before)
    pairs = (items[later - 1 - gaps], items[later])
    counts = sp.csr_matrix((np.exp(-gaps / DECAY), pairs), (num_items, num_items))
    return _without_diagonal(counts)


def _common(users: sp.csr_matrix) -> sp.csr_matrix:
    """Returns c of a graph, an item's most frequent `KEPT` neighbours only."""
    weighed = sp.diags(np.maximum(1.0, np.asarray(users.sum(axis=1)).ravel()) ** -0.5) @ users
    columns = users.T.tocsr()
    begins = range(0, columns.shape[0], _BLOCK)
    return _without_diagonal(
        sp.vstack([_largest((columns[begin : begin + _BLOCK] @ weighed).tocsr()) for begin in begins]).tocsr()
    )


def _normalised(counts: sp.csr_matrix) -> sp.csr_matrix:
    """Returns w."""
    rows, columns = (np.asarray(counts.sum(axis=axis)).ravel() + SHRINK for axis in (1, 0))
    return (sp.diags(rows**-0.5) @ counts @ sp.diags(columns**-0.5)).tocsr()


def _largest(counts: sp.csr_matrix) -> sp.csr_matrix:
    """Returns the largest `KEPT` values of each row; of equal ones those of the first columns."""
    counts.sort_indices()
    owner = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
    order = np.lexsort((-counts.data, owner))
    places = np.arange(len(order)) - np.repeat(counts.indptr[:-1], np.diff(counts.indptr))
    kept = order[places < KEPT]
    return sp.csr_matrix((counts.data[kept], (owner[kept], counts.indices[kept])), counts.shape)


def _without_diagonal(counts: sp.csr_matrix) -> sp.csr_matrix:
    counts = counts.tocoo()
    kept = counts.row != counts.col
    return sp.csr_matrix((counts.data[kept], (counts.row[kept], counts.col[kept])), counts.shape)
