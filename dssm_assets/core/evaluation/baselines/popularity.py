"""Popularity: the same list for everybody, the items with the most positive events first.

Belongs here: the scorer; over the window it is `popularity`, over its last days `recent_popularity`.
Does not belong here: which days count, which the caller decides by the interactions it hands in.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from dssm_assets.core.evaluation.baselines.fill import fill_up, place_of
from dssm_assets.core.evaluation.places import Asked, Places, places_by_rank
from dssm_assets.core.retrieval.exclusions import Exclusions, Index


@dataclass(frozen=True)
class Popularity:
    """One order for all users. Personal only through exclusions."""

    name: str
    order: Index
    """int64 [I], best first."""
    block_size: int = 8192

    def top_items(self, user_rows: Index, k: int, excluded: Exclusions | None) -> Index:
        """Returns item_index int64 [B, K]."""
        return fill_up(np.zeros((len(user_rows), 0), dtype=np.int64), self.order, k, excluded)

    def places(self, asked: Asked, k: int) -> Places:
        """Returns the places of the pairs: those in the common order."""
        pair_rank, taken_rank = self._place[asked.pair_item], self._place[asked.taken.indices]
        return places_by_rank(asked, k, pair_rank=pair_rank, taken_rank=taken_rank, free=pair_rank)

    @cached_property
    def _place(self) -> Index:
        return place_of(self.order)
