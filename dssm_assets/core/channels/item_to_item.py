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

from dssm_assets.core.arrays.ragged import IntArray
from dssm_assets.core.evaluation.baselines.item_cooccurrence import best_columns

MIN_COMMON_USERS: Final = 2
"""Fewest users of two items that are neighbours."""


@dataclass(frozen=True)
class ItemNeighbors:
    """Users' items, and the similar items of each item."""

    users: Any
    """scipy csr [U, I], 1 where the user interacted with the item."""
    neighbors: Any
    """scipy csr [I, I], row i: similarities of the most similar items of i."""
    allowed: npt.NDArray[np.bool_] | None = None
    """bool [I], the items that may be found; None: all."""

    @classmethod
    def from_history(
        cls, indptr: IntArray, items: IntArray, neighbors: Any, allowed: npt.NDArray[np.bool_] | None = None
    ) -> ItemNeighbors:
        """Returns the neighbours of these users' items, those of user u being items[indptr[u] : indptr[u + 1]]."""
        shape = (len(indptr) - 1, neighbors.shape[0])
        return cls(sp.csr_matrix((np.ones(len(items), np.float32), items, indptr), shape=shape), neighbors, allowed)

    def find(self, user_rows: IntArray, k: int) -> IntArray:
        """Returns item_index int64 [B, K], best first, -1 after the last."""
        own = self.users[user_rows]
        scores = (own @ self.neighbors).tocsr()
        scores = scores - scores.multiply(own)  # own items have exactly 0, which is not proposed
        if self.allowed is not None:
            scores = scores.multiply(self.allowed)
        return best_columns(scores.tocsr(), k).lists(k)
