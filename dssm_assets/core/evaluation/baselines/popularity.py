"""Popularity: the same list for everybody, the items with the most positive events first.

Belongs here: the scorer; over the window it is `popularity`, over its last days `recent_popularity`.
Does not belong here: which days count, which the caller decides by the interactions it hands in.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from dssm_assets.core.arrays.ragged import Exclusions, IntArray
from dssm_assets.core.evaluation.baselines.fill import fill_up, place_of, places_behind
from dssm_assets.core.evaluation.interactions import Interactions
from dssm_assets.core.evaluation.places import Asked, Places, find, is_among, places_by_rank


@dataclass(frozen=True)
class Popularity:
    """One order for all users. Personal only through exclusions."""

    name: str
    order: IntArray
    """int64 [I], best first."""
    block_size: int = 8192

    def top_items(self, user_rows: IntArray, k: int, excluded: Exclusions | None) -> IntArray:
        """Returns item_index int64 [B, K]."""
        return fill_up(np.zeros((len(user_rows), 0), dtype=np.int64), self.order, k, excluded)

    def places(self, asked: Asked, k: int) -> Places:
        """Returns the places of the pairs: those in the common order."""
        pair_rank, taken_rank = self._place[asked.pair_item], self._place[asked.taken.indices]
        return places_by_rank(asked, k, pair_rank=pair_rank, taken_rank=taken_rank, free=pair_rank)

    @cached_property
    def _place(self) -> IntArray:
        return place_of(self.order)


@dataclass(frozen=True)
class OwnHistory:
    """The user's own items by (count descending, last time descending, item_index ascending), then popular ones."""

    name: str
    indptr: IntArray
    """int64 [V + 1]"""
    items: IntArray
    """int64 [E], each user's items, ascending."""
    rank: IntArray
    """int64 [E], the place of each among the user's own, from 0."""
    order: IntArray
    """int64 [I], what lists are filled up with."""
    block_size: int = 1024

    def top_items(self, user_rows: IntArray, k: int, excluded: Exclusions | None) -> IntArray:
        """Returns item_index int64 [B, K]."""
        user, items, rank = self._own(user_rows)
        best_first = np.empty_like(items)
        best_first[np.searchsorted(user, user) + rank] = items
        items = best_first
        if excluded is not None:
            is_free = ~is_among(user, items, np.repeat(np.arange(len(user_rows)), excluded.lengths), excluded.indices)
            user, items = user[is_free], items[is_free]
        # A long history fills the list by itself: no more of it than the list holds is looked at.
        column = np.arange(len(user)) - np.searchsorted(user, user)
        own = np.full((len(user_rows), k), -1, dtype=np.int64)
        own[user[column < k], column[column < k]] = items[column < k]
        return fill_up(own, self.order, k, excluded)

    def places(self, asked: Asked, k: int) -> Places:
        """Returns the places of the pairs: an own item's among the own, any other's behind them."""
        user, items, rank = self._own(asked.user_rows)
        pair_place = self._place[asked.pair_item]
        pair_own = find(asked.pair_row, asked.pair_item, user, items)
        taken_own = find(asked.taken_row, asked.taken.indices, user, items)
        behind = places_behind(user, self._place[items], asked, pair_place, k)
        rank = np.append(rank, 0)  # of what -1 points at
        return places_by_rank(
            asked,
            k,
            pair_rank=np.where(pair_own >= 0, rank[pair_own], len(self.order) + pair_place),
            taken_rank=np.where(taken_own >= 0, rank[taken_own], len(self.order) + self._place[asked.taken.indices]),
            free=np.where(pair_own >= 0, rank[pair_own], behind),
        )

    def _own(self, user_rows: IntArray) -> tuple[IntArray, IntArray, IntArray]:
        """Returns row, item and rank of the own items of some users, ascending by row and item."""
        items = Exclusions(self.indptr, self.items).select_users(user_rows)
        row = np.repeat(np.arange(len(user_rows)), items.lengths)
        return row, items.indices, Exclusions(self.indptr, self.rank).select_users(user_rows).indices

    @cached_property
    def _place(self) -> IntArray:
        return place_of(self.order)


def fit_own_history(name: str, interactions: Interactions, order: IntArray) -> OwnHistory:
    """Returns the scorer for the given interactions."""
    keys = (interactions.item_index, -interactions.last_time_ms, -interactions.count, interactions.user_index)
    rank = np.empty(len(interactions.item_index), dtype=np.int64)
    rank[np.lexsort(keys)] = np.arange(len(rank))
    rank -= np.repeat(interactions.indptr[:-1], np.diff(interactions.indptr))
    return OwnHistory(name, interactions.indptr, interactions.item_index, rank, order)
