"""Item co-occurrence: items that many users took together with the user's own items (item-based nearest neighbours).

Source: Sarwar et al., "Item-based collaborative filtering recommendation algorithms" (2001), section 3, with cosine
similarity over sets: similarity(i, j) = users of both / sqrt(users of i * users of j).

Memory is bounded by the interactions, the neighbours and FIT_PAIRS; time by the pairs of items that users took together, to
which a user of n items adds n squared: of a user's items only the last MOST_ITEMS count as taken together.

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
from dssm_assets.core.retrieval.exclusions import Exclusions, Index
from dssm_assets.core.retrieval.sparse_ranking import best_columns

FIT_PAIRS = 2_000_000
"""Pairs of items held at once, about."""
MOST_ITEMS = 1000
"""Items of a user that count as taken together: the last ones."""


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
        ranked = best_columns(self.users[user_rows] @ self.neighbors, k, excluded).lists(k)
        return fill_up(ranked, self.order, k, excluded)


def fit_item_cooccurrence(
    window: Interactions, num_neighbors: int, order: Index, block_size: int = 256, most_items: int = MOST_ITEMS
) -> ItemCooccurrence:
    """Returns the scorer: each item's num_neighbors most similar others, ties by item_index ascending.

    An item is not its own neighbour: that the user already took it says nothing about what goes with it.

    Args:
        window: who took what.
        num_neighbors: kept per item.
        order: what lists are filled up with.
        block_size: users scored at once.
        most_items: items of a user, the last it took, that count as taken together.
    """
    return item_cooccurrence(window, fit_neighbors(window, num_neighbors, most_items), order, block_size)


def item_cooccurrence(window: Interactions, neighbors: Any, order: Index, block_size: int = 256) -> ItemCooccurrence:
    """Returns the scorer of these users by neighbours that may come from more of them."""
    return ItemCooccurrence(_by_user(window), neighbors, order, block_size)


def fit_neighbors(window: Interactions, num_neighbors: int, most_items: int = MOST_ITEMS) -> Any:
    """Returns csr [I, I]: in row i the similarities of i's num_neighbors most similar others."""
    together = _last_items(window, _by_user(window), most_items)
    return _neighbors(together, together.T.tocsr(), num_neighbors)


def _by_user(window: Interactions) -> Any:
    shape = (len(window.indptr) - 1, window.num_items)
    return sp.csr_matrix((np.ones(len(window.item_index), np.float32), window.item_index, window.indptr), shape=shape)


def _last_items(window: Interactions, users: Any, most_items: int) -> Any:
    """Returns the users' matrix with only the last items of those who took more than most_items."""
    if not (np.diff(window.indptr) > most_items).any():
        return users
    order = np.lexsort((window.item_index, -window.last_time_ms, window.user_index))
    is_last = np.zeros(len(order), dtype=bool)
    is_last[order] = np.arange(len(order)) - np.repeat(window.indptr[:-1], np.diff(window.indptr)) < most_items
    indptr = np.concatenate([[0], np.cumsum(is_last)])[window.indptr]
    return sp.csr_matrix((users.data[is_last], window.item_index[is_last], indptr), shape=users.shape)


def _neighbors(together: Any, by_item: Any, num_neighbors: int) -> Any:
    """Returns csr [I, I]: of each item its most similar others; written in place, for it is the largest thing held."""
    num_items, count = by_item.shape[0], 0
    per_item = np.maximum(np.diff(by_item.indptr), 1)
    most = min(num_neighbors, num_items) * num_items
    columns, values, lengths = np.empty(most, np.int32), np.empty(most, np.float64), np.zeros(num_items, np.int64)
    for start, end in _blocks(by_item, np.diff(together.indptr)):
        best = best_columns(_similarities(by_item[start:end] @ together, start, per_item), num_neighbors)
        place = slice(count, count + len(best.columns))
        columns[place], values[place], lengths[start:end] = best.columns, best.values, best.lengths
        count = place.stop
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    return sp.csr_matrix((values[:count], columns[:count], indptr), shape=(num_items, num_items))


def _blocks(by_item: Any, items_of_user: Index) -> list[tuple[int, int]]:
    """Returns consecutive blocks of items (first, end), each with about FIT_PAIRS pairs, one item at least."""
    sums = np.concatenate([[0], np.cumsum(items_of_user[by_item.indices])])
    pairs = np.minimum(np.diff(sums[by_item.indptr]), by_item.shape[0])
    _, starts = np.unique(np.cumsum(pairs) // FIT_PAIRS, return_index=True)
    return list(zip(starts.tolist(), [*starts[1:].tolist(), by_item.shape[0]], strict=True))


def _similarities(together: Any, start: int, per_item: Index) -> Any:
    """Returns the similarities of a block of items to all, by co-occurrence counts; 0 of an item to itself."""
    row = np.repeat(np.arange(together.shape[0]), np.diff(together.indptr)) + start
    column = together.indices
    similarity = together.data.astype(np.float64) / np.sqrt(per_item[row].astype(np.float64) * per_item[column])
    similarity[row == column] = 0.0
    return sp.csr_matrix((similarity, column, together.indptr), shape=together.shape)
