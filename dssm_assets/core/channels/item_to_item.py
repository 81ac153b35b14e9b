"""The channel of items that co-occur with the user's items in other users' histories, without the user's own items.

Score of an item = sum of its similarities to all items that the user interacted with before. Similarities are those of the baseline item
co-occurrence in the window, but of items that at least two users have in common: pairs of one user are almost all pairs, and mostly
chance. On the demo's days for tuning, lists without own items find .115 and .124 of what is new to a household, lists with pairs of
one user .04, popular items .108 and .118. Own items are left out: the channel of own history proposes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from dssm_assets.core.arrays.ragged import IntArray, offsets_of, ranges

MIN_COMMON_USERS: Final = 2
"""Fewest users of two items that are neighbours."""


@dataclass(frozen=True)
class ItemNeighbors:
    """Users' items, and the similar items of each item."""

    indptr: IntArray
    """int64 [U + 1]"""
    items: IntArray
    """int64 [E], those of user u at indptr[u] : indptr[u + 1], ascending."""
    neighbors: Any
    """scipy csr [I, I], row i: similarities of the most similar items of i."""
    allowed: npt.NDArray[np.bool_] | None = None
    """bool [I], the items that may be found; None: all."""

    def find(self, user_rows: IntArray, k: int) -> IntArray:
        """Returns item_index int64 [B, K], best first, -1 after the last."""
        starts, num_items = self.indptr[user_rows], self.neighbors.shape[0]
        lengths = self.indptr[user_rows + 1] - starts
        own, bounds = self.items[ranges(starts, lengths)], offsets_of(lengths)
        users = sp.csr_matrix((np.ones(len(own), np.float32), own, bounds), shape=(len(user_rows), num_items))
        summed = users @ self.neighbors
        lists = np.full((len(user_rows), k), -1, np.int64)
        is_left_out = np.zeros(num_items, np.bool_) if self.allowed is None else ~self.allowed
        for row, found in enumerate(lists):
            mine, part = own[bounds[row] : bounds[row + 1]], slice(summed.indptr[row], summed.indptr[row + 1])
            before = is_left_out[mine]
            is_left_out[mine] = True
            items = summed.indices[part]
            best = _order_best(items, np.where(np.take(is_left_out, items), 0.0, summed.data[part]), k)
            is_left_out[mine] = before
            found[: len(best)] = best
        return lists


def _order_best(items: npt.NDArray[np.int32], scores: npt.NDArray[np.float64], k: int) -> npt.NDArray[np.int32]:
    """Returns the items of the k highest scores above 0, best first, equal ones by item."""
    is_best = scores > 0
    if len(scores) > k:
        is_best &= scores >= np.partition(scores, len(scores) - k)[len(scores) - k]
    items, scores = items[is_best], scores[is_best]
    ascending = np.argsort(items)
    best: npt.NDArray[np.int32] = items[ascending[np.argsort(-scores[ascending], kind="stable")[:k]]]
    return best
