"""Item co-occurrence: items that many users took together with the user's own items (item-based nearest neighbours).

Source: Sarwar et al., "Item-based collaborative filtering recommendation algorithms" (2001), section 3, with cosine
similarity over sets: similarity(i, j) = users of both / sqrt(users of i * users of j).

Belongs here: neighbours and the scorer. Does not belong here: which days count.

Shapes: V users, B users of a block, I items, K top-k.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from dssm_assets.core.evaluation.baselines.fill import fill_up
from dssm_assets.core.evaluation.interactions import Interactions
from dssm_assets.core.evaluation.scorer import ScorerName
from dssm_assets.core.retrieval.exact import top_k_scores
from dssm_assets.core.retrieval.exclusions import Exclusions, Index

FIT_ITEMS = 1024
"""Items whose neighbours are found at once."""
DENSE_CELLS = 32_000_000
"""Scores held at once: a block of users times all items."""


@dataclass(frozen=True)
class ItemCooccurrence:
    """Score of an item = sum of its similarities to the user's items; only items above 0, then popular ones."""

    users: Any
    """scipy csr [V, I], 1 where the user took the item."""
    neighbors: Any
    """scipy csr [I, I], row i: the most similar items of i."""
    order: Index
    """int64 [I], what lists are filled up with."""
    block_size: int
    name: str = ScorerName.ITEM_COOCCURRENCE

    def top_items(self, user_rows: Index, k: int, excluded: Exclusions | None) -> Index:
        """Returns item_index int64 [B, K]."""
        scores = (self.users[user_rows] @ self.neighbors).toarray()
        scores[scores <= 0] = -np.inf
        ranked, _ = top_k_scores(scores, k, excluded)
        return fill_up(ranked, self.order, k, excluded)


def fit_item_cooccurrence(window: Interactions, num_neighbors: int, order: Index, block_size: int = 256) -> ItemCooccurrence:
    """Returns the scorer: each item's num_neighbors most similar others, ties by item_index ascending.

    An item is not its own neighbour: that the user already took it says nothing about what goes with it.
    """
    return item_cooccurrence(window, fit_neighbors(window, num_neighbors), order, block_size)


def item_cooccurrence(window: Interactions, neighbors: Any, order: Index, block_size: int = 256) -> ItemCooccurrence:
    """Returns the scorer of these users by neighbours that may come from more of them."""
    limit = max(1, DENSE_CELLS // max(window.num_items, 1))
    return ItemCooccurrence(_by_user(window), neighbors, order, min(block_size, limit))


def fit_neighbors(window: Interactions, num_neighbors: int) -> Any:
    """Returns csr [I, I]: in row i the similarities of i's num_neighbors most similar others."""
    users = _by_user(window)
    per_item = np.maximum(np.bincount(window.item_index, minlength=window.num_items), 1)
    by_item = users.T.tocsr()
    blocks = [
        _neighbors(by_item[start : start + FIT_ITEMS] @ users, start, per_item, num_neighbors)
        for start in range(0, window.num_items, FIT_ITEMS)
    ]
    return sp.vstack(blocks, format="csr")


def _by_user(window: Interactions) -> Any:
    shape = (len(window.indptr) - 1, window.num_items)
    return sp.csr_matrix((np.ones(len(window.item_index)), window.item_index, window.indptr), shape=shape)


def _neighbors(together: Any, start: int, per_item: Index, num_neighbors: int) -> Any:
    """Returns csr [block, I] with the best similarities per row of a block of co-occurrence counts."""
    pairs = together.tocoo()
    other = pairs.row + start != pairs.col
    row, column, count = pairs.row[other], pairs.col[other].astype(np.int64), pairs.data[other]
    similarity = count / np.sqrt(per_item[row + start].astype(np.float64) * per_item[column])
    ranking = np.lexsort((column, -similarity, row))
    row, column, similarity = row[ranking], column[ranking], similarity[ranking]
    first = np.searchsorted(row, np.arange(together.shape[0]))
    kept = np.arange(len(row)) - first[row] < num_neighbors
    return sp.csr_matrix((similarity[kept], (row[kept], column[kept])), shape=together.shape)
