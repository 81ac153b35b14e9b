"""Negatives by weight plus hard negatives: items that a row's user was shown and did not interact with.

A hard negative counts for its row alone. A batch has a total number of them, which is divided over the rows as evenly as
their users' edges allow; chance decides which rows get the remainder. A row that gets k of its user's d edges has the edges

    (r + j * d) // k  for j = 0 .. k - 1, with r drawn uniformly from 0 .. d - 1

These are k different edges, each with probability exactly k / d, whatever the order of the edges.

Letters: B rows, I items, U users, E edges, H hard negatives of a batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dssm_assets.core.arrays.ragged import IntArray, offsets_of, repeat_rows
from dssm_assets.core.models.samplers.weighted import WeightedSampler


@dataclass(frozen=True)
class HardDraw:
    """Hard negatives of a batch.

    Attributes:
        rows: the row that each counts for, ascending [H].
        items: item indices [H].
        probability: that the edge is drawn for its row [H].
        days: first day of the window on which the item was shown [H].
    """

    rows: IntArray
    items: IntArray
    probability: npt.NDArray[np.float64]
    days: IntArray

    @classmethod
    def empty(cls) -> HardDraw:
        """Returns no hard negatives."""
        none = np.zeros(0, np.int64)
        return cls(none, none, np.zeros(0, np.float64), none)

    def keep(self, is_kept: npt.NDArray[np.bool_]) -> HardDraw:
        """Returns the hard negatives that the mask [H] selects, with unchanged probabilities."""
        return HardDraw(self.rows[is_kept], self.items[is_kept], self.probability[is_kept], self.days[is_kept])


@dataclass(frozen=True)
class HardEdges:
    """Which items each user was shown and did not interact with, user after user.

    Attributes:
        offsets: the edges of user u are offsets[u] .. offsets[u + 1] - 1 [U + 1].
        items: item index of each edge [E].
        days: first day of the window on which the item was shown [E].
    """

    offsets: IntArray
    items: npt.NDArray[np.int32]
    days: npt.NDArray[np.int32]

    @classmethod
    def empty(cls) -> HardEdges:
        """Returns the edges of a log without exposures."""
        nothing = np.zeros(0, np.int32)
        return cls(np.zeros(1, np.int64), nothing, nothing)

    def draw(self, user_index: npt.NDArray[np.int32], count: int, rng: np.random.Generator) -> HardDraw:
        """Returns at most `count` edges of the rows' users.

        Args:
            user_index: user of each row, -1 for an unknown user [B].
            count: largest number of hard negatives in the batch.
            rng: decides which rows get the remainder, and which edges each row gets.
        """
        is_known = (user_index >= 0) & (user_index < len(self.offsets) - 1)
        users = np.where(is_known, user_index, 0)
        first = self.offsets[users]
        degree = np.where(is_known, self.offsets[np.minimum(users + 1, len(self.offsets) - 1)] - first, 0)
        quota = divide_evenly(degree, count, rng)
        start = rng.integers(np.maximum(degree, 1))
        rows = repeat_rows(quota)
        rank = np.arange(len(rows), dtype=np.int64) - offsets_of(quota)[rows]
        edges = first[rows] + (start[rows] + rank * degree[rows]) // quota[rows]
        items, days = self.items[edges].astype(np.int64), self.days[edges].astype(np.int64)
        return HardDraw(rows, items, quota[rows] / degree[rows], days)


class HardSampler(WeightedSampler):
    """Draws item indices by weight, and hard negatives of the rows' users."""

    def __init__(self, weights: npt.NDArray[np.float64], edges: HardEdges) -> None:
        """Builds the alias table; `edges` are what users were shown and did not interact with."""
        super().__init__(weights)
        self._edges = edges

    def draw_hard(self, user_index: npt.NDArray[np.int32], count: int, rng: np.random.Generator) -> HardDraw:
        """Returns hard negatives of the rows' users; see `HardEdges.draw`."""
        return self._edges.draw(user_index, count, rng)


def divide_evenly(capacity: IntArray, count: int, rng: np.random.Generator) -> IntArray:
    """Returns how many of `count` each row gets: as evenly as capacities allow, the remainder by chance [B].

    Example: capacities 0, 1, 5, 9 and count 8 give 0, 1 and then 3 and 4 in random order.
    """
    if capacity.sum() <= count:
        return capacity.astype(np.int64)
    low, high = 0, count  # the greatest number that every row can get, its capacity permitting, is in low .. high
    while low < high:
        level = (low + high + 1) // 2
        low, high = (level, high) if np.minimum(capacity, level).sum() <= count else (low, level - 1)
    quota = np.minimum(capacity, low).astype(np.int64)
    quota[rng.permutation(np.flatnonzero(capacity > low))[: count - quota.sum()]] += 1
    return quota
