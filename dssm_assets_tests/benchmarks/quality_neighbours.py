"""Neighbours of items, whose scores can be added to those of vectors: what follows an item.

The score of item j after item i is the sum, over users, of how soon j comes after i:

    c(i, j) = sum of exp(-(events between) / DECAY),   w(i, j) = c(i, j) / sqrt((n(i) + SHRINK) (m(j) + SHRINK))

with n and m the sums of c over rows and columns. A user's score of j is the sum of w(i, j) over its last items, by the
same decay. Products of short vectors can not hold such a matrix: it is the channel of item-to-item beside the vectors.

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
_SAMPLE = 400


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


def find_neighbours(split: Split, score_std: float) -> Neighbours:
    """Returns the neighbours of a training part; `score_std`: deviation of a user's scores over all items, mean over users."""
    order, bounds = split.by_user()
    items, lengths = split.item[order], np.diff(bounds)
    shape = (len(lengths), len(split.item_ids))
    owner = np.repeat(np.arange(len(lengths)), lengths)
    places = ranges(np.zeros(len(lengths), np.int64), lengths)
    from_end = np.repeat(lengths, lengths) - 1 - places
    is_last = from_end < WINDOW
    users = sp.csr_matrix((np.exp(-from_end[is_last] / DECAY), (owner[is_last], items[is_last])), shape)
    counts = _count_following(items, places, shape[1])
    rows, columns = (np.asarray(counts.sum(axis=axis)).ravel() + SHRINK for axis in (1, 0))
    weights = (sp.diags(rows**-0.5) @ counts @ sp.diags(columns**-0.5)).tocsr()
    sample = np.unique(np.linspace(0, shape[0] - 1, min(shape[0], _SAMPLE)).astype(np.int64))
    std = float((users[sample] @ weights).toarray().std(axis=1).mean())
    return Neighbours(users.astype(np.float32), (weights * (score_std / max(std, 1e-9))).astype(np.float32))


def add_neighbours(vectors: ByVectors, neighbours: Neighbours | None) -> Recommender:
    """Returns the recommender whose scores are the sum of both; without neighbours the vectors."""
    if neighbours is None:
        return vectors
    return ByScores(lambda users: vectors.users[users] @ vectors.items.T + neighbours.scores(users))


def _count_following(items: Ints, places: Ints, num_items: int) -> sp.csr_matrix:
    """Returns c of events by user, each with its place among its user's events."""
    before = np.minimum(places, WINDOW)
    gaps = ranges(np.zeros(len(before), np.int64), before)  # 0: the event just before
    later = np.repeat(np.arange(len(items)), before)
    first, second = items[later - 1 - gaps], items[later]
    differs = first != second
    counts = np.exp(-gaps[differs] / DECAY)
    return sp.csr_matrix((counts, (first[differs], second[differs])), (num_items, num_items))
