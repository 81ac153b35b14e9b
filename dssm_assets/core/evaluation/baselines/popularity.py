"""Popularity: the same list for everybody, the items with the most positive events first.

Belongs here: the scorer; over the window it is `popularity`, over its last days `recent_popularity`.
Does not belong here: which days count, which the caller decides by the interactions it hands in.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dssm_assets.core.evaluation.baselines.fill import fill_up
from dssm_assets.core.retrieval.exclusions import Exclusions, Index


@dataclass(frozen=True)
class Popularity:
    """One order for all users. Personal only through exclusions."""

    name: str
    order: Index
    """int64 [I], best first."""
    block_size: int = 256

    def top_items(self, user_rows: Index, k: int, excluded: Exclusions | None) -> Index:
        """Returns item_index int64 [B, K]."""
        return fill_up(np.zeros((len(user_rows), 0), dtype=np.int64), self.order, k, excluded)
