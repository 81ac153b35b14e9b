"""Neighbours: for each item the items that many users interacted with next to it, and for a user the neighbours of the user's items.

Source: Sarwar et al., "Item-based collaborative filtering recommendation algorithms" (2001), section 3, with cosine
similarity over sets: similarity(i, j) = users of both / sqrt(users of i * users of j).

Time is bounded by the pairs of items of each user: a user of n items adds n squared.

Shapes: V users, B users of a block, I items, E (user, item) pairs, K top-k.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from dssm_assets.core.arrays.ordering import find_best
from dssm_assets.core.arrays.ragged import IntArray, Mask, offsets_of, ranges, row_of_value

NUM_NEIGHBORS: Final = 200
"""Neighbours of an item, at most."""
FIT_PAIRS: Final = 2_000_000
"""Pairs of items counted at once, about."""

Allocate: TypeAlias = Callable[[int, Any], NDArray[Any]]
"""Returns an array of a length and a dtype, in memory or in a file."""


@dataclass(frozen=True)
class UserItems:
    """The items of each user's interactions in the window: those of user v are items[starts[v] : starts[v + 1]].

    Attributes:
        starts: int64 [V + 1].
        items: int32 [E], distinct within a user.
        num_items: I.
    """

    starts: IntArray
    items: NDArray[np.int32]
    num_items: int


def fit_neighbors(
    users: UserItems,
    allocate: Allocate = np.empty,
    *,
    min_common_users: int = 1,
    of_items: Mask | None = None,
    num_neighbors: int = NUM_NEIGHBORS,
) -> Any:
    """Returns scipy csr [I, I]: row i holds the similarities of i's most similar other items, best first, equal ones by index.

    An item is not its own neighbour: that the user has it already says nothing about what goes with it. Two items that the same single
    user has are as similar as can be.

    Args:
        allocate: makes the arrays of the neighbours.
        min_common_users: fewest users of both items. With fewer than two, nearly all pairs are chance.
        of_items: bool [I], the items that neighbours are needed of; the rows of others are empty. None: all.
    """
    by_user = csr_of(users.starts, users.items, np.ones(len(users.items), np.int32), users.num_items)
    by_item = by_user.T.tocsr()
    users_per_item = np.diff(by_item.indptr).astype(np.float64)
    items = np.arange(users.num_items) if of_items is None else np.flatnonzero(of_items)
    lists = _Lists(users.num_items, num_neighbors, allocate)
    for part in _split_evenly(items, (by_item @ np.diff(users.starts))[items]):
        together = by_item[part] @ by_user
        columns, rows = together.indices, row_of_value(together.indptr)
        scores = together.data / np.sqrt(users_per_item[part][rows] * users_per_item[columns])
        scores[(columns == part[rows]) | (together.data < min_common_users)] = 0
        _drop_all_but_best(scores, together.indptr, num_neighbors)
        cells = np.flatnonzero(scores)
        cells = cells[np.lexsort((columns[cells], -scores[cells], rows[cells]))]
        lists.add(part[rows[cells]], columns[cells], scores[cells])
    return lists.matrix()


def _split_evenly(items: IntArray, sizes: IntArray) -> Iterator[IntArray]:
    """Yields the items in ranges of about FIT_PAIRS pairs; those without pairs are left out."""
    items, sizes = items[sizes > 0], sizes[sizes > 0]
    yield from np.split(items, np.flatnonzero(np.diff(np.cumsum(sizes) // FIT_PAIRS)) + 1) if len(items) else ()


def _drop_all_but_best(scores: NDArray[np.float64], starts: NDArray[Any], k: int) -> None:
    """Sets the scores of a row to 0 that are below the k-th highest of it."""
    for row in np.flatnonzero(np.diff(starts) > k):
        of_row = scores[starts[row] : starts[row + 1]]
        of_row[of_row < np.partition(of_row, len(of_row) - k)[len(of_row) - k]] = 0


class _Lists:
    """The first columns and values of each row of a csr [I, I], which are added in ascending order of the rows."""

    def __init__(self, num_items: int, most: int, allocate: Allocate) -> None:
        room = min(most, num_items) * num_items
        self._columns, self._values = allocate(room, np.int32), allocate(room, np.float64)
        self._lengths, self._count, self._most = np.zeros(num_items, np.int64), 0, most

    def add(self, rows: IntArray, columns: NDArray[np.int32], values: NDArray[np.float64]) -> None:
        first = np.searchsorted(rows, rows)
        is_kept = np.arange(len(rows)) - first < self._most
        place = slice(self._count, self._count + int(is_kept.sum()))
        self._columns[place], self._values[place] = columns[is_kept], values[is_kept]
        np.add.at(self._lengths, rows[is_kept], 1)
        self._count = place.stop

    def matrix(self) -> Any:
        return csr_of(offsets_of(self._lengths), self._columns[: self._count], self._values[: self._count])


def csr_of(starts: IntArray, columns: Any, values: Any, num_columns: int | None = None) -> Any:
    """Returns csr [R, C], square if C is not given, over these very arrays; the constructor would copy some."""
    matrix = sp.csr_matrix((len(starts) - 1, len(starts) - 1 if num_columns is None else num_columns))
    kind = np.int32 if starts[-1] <= np.iinfo(np.int32).max else np.int64
    matrix.indptr, matrix.indices, matrix.data = starts.astype(kind), columns, values
    return matrix


@dataclass(frozen=True)
class NeighborLists:
    """Lists of neighbours of users' items: the score of an item is the sum of its similarities to all items of the user."""

    indptr: IntArray
    """int64 [V + 1]"""
    items: IntArray
    """int64 [E], those of user v at indptr[v] : indptr[v + 1], ascending."""
    neighbors: Any
    """scipy csr [I, I], as of `fit_neighbors`."""
    has_own_items: bool = True
    """Whether the user's own items may be in the list."""
    allowed: Mask | None = None
    """bool [I], the items that may be in a list; None: all."""

    def top_items(self, user_rows: IntArray, k: int) -> IntArray:
        """Returns item_index int64 [B, K], best first, equal ones by index, -1 after the last item with a score above 0."""
        starts, num_items = self.indptr[user_rows], self.neighbors.shape[0]
        lengths = self.indptr[user_rows + 1] - starts
        own, bounds = self.items[ranges(starts, lengths)], offsets_of(lengths)
        users = sp.csr_matrix((np.ones(len(own), np.float32), own, bounds), shape=(len(user_rows), num_items))
        summed = users @ self.neighbors
        is_offered = np.ones(num_items, np.bool_) if self.allowed is None else self.allowed.copy()
        lists = np.full((len(user_rows), k), -1, np.int64)
        for row, found in enumerate(lists):
            cells = slice(summed.indptr[row], summed.indptr[row + 1])
            items, scores = summed.indices[cells], summed.data[cells]
            if not self.has_own_items:
                mine = own[bounds[row] : bounds[row + 1]]
                before = is_offered[mine]
                is_offered[mine] = False
            best = find_best(items, np.where(np.take(is_offered, items), scores, 0.0), k)
            if not self.has_own_items:
                is_offered[mine] = before
            found[: len(best)] = items[best]
        return lists
