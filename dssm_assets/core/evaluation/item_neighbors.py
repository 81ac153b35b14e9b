"""Neighbours: for each item, other items with many of the same users; and lists of the neighbours of a user's items.

Source: Sarwar et al., "Item-based collaborative filtering recommendation algorithms" (2001), section 3, with cosine
similarity over sets: similarity(i, j) = users of both / sqrt(users of i * users of j).

Time is bounded by the pairs of items of each user: a user of n items adds n squared.

Shapes: V users, B users of a block, I items, E (user, item) pairs, K top-k.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse as sp
from numpy.typing import NDArray

from dssm_assets.core.arrays.ordering import top_of_rows
from dssm_assets.core.arrays.ragged import IntArray, ItemSets, Mask, offsets_of, ranges, repeat_rows, row_of_value

NUM_NEIGHBORS: Final = 200
"""Neighbours of an item, at most."""
FIT_PAIRS: Final = 2_000_000
"""Pairs of items counted at once, about."""

Allocate: TypeAlias = Callable[[int, Any], NDArray[Any]]
"""Returns an array of a length and a dtype, in memory or in a file."""


def fit_neighbors(
    users: ItemSets,
    num_items: int,
    allocate: Allocate = np.empty,
    *,
    common_users: Sequence[int] = (1,),
    of_items: Mask | None = None,
    num_neighbors: int = NUM_NEIGHBORS,
) -> dict[int, Any]:
    """Finds each item's most similar other items, once for every threshold in `common_users`.

    Returns threshold -> scipy csr [I, I]: row i has the similarities of i's neighbours, best first, ties by index. An item is never
    its own neighbour, because the user has it already.

    Args:
        users: each user's items.
        num_items: I.
        allocate: allocates the arrays of the neighbours.
        common_users: thresholds: neighbours have at least so many users in common. One common user is nearly always chance.
        of_items: bool [I], marks the items that need neighbours; other rows are empty. None: all.
    """
    by_user = csr_of(users.offsets, users.items, np.ones(len(users.items), np.int32), num_items)
    by_item = by_user.T.tocsr()
    users_per_item = np.diff(by_item.indptr).astype(np.float64)
    pairs = by_item @ users.lengths
    wanted = np.flatnonzero(pairs if of_items is None else pairs * of_items)
    found = {fewest: _NearestRows(num_items, num_neighbors, allocate) for fewest in common_users}
    # Ranges of items with about FIT_PAIRS pairs.
    for items in np.split(wanted, np.flatnonzero(np.diff(np.cumsum(pairs[wanted]) // FIT_PAIRS)) + 1) if len(wanted) else ():
        together = by_item[items] @ by_user
        rows, columns = row_of_value(together.indptr), together.indices
        scores = together.data / np.sqrt(users_per_item[items][rows] * users_per_item[columns])
        common = np.where(columns == items[rows], 0, together.data)
        for fewest, nearest in found.items():
            cells = np.flatnonzero(common >= fewest)
            nearest.add(items, rows[cells], columns[cells], scores[cells])
    return {fewest: nearest.to_csr() for fewest, nearest in found.items()}


class _NearestRows:
    """A csr [I, I] under construction. Keeps the highest values of each row."""

    def __init__(self, num_items: int, most: int, allocate: Allocate) -> None:
        room = min(most, num_items) * num_items
        self._columns, self._values = allocate(room, np.int32), allocate(room, np.float64)
        self._lengths, self._count, self._most = np.zeros(num_items, np.int64), 0, most

    def add(self, items: IntArray, rows: IntArray, columns: NDArray[np.int32], scores: NDArray[np.float64]) -> None:
        """Adds the rows of `items`, which ascend. A cell is a position among `items`, a column and a score."""
        starts, is_high = offsets_of(np.bincount(rows, minlength=len(items))), np.ones(len(rows), np.bool_)
        for row in np.flatnonzero(np.diff(starts) > self._most):  # sorting them whole would take longer
            own = slice(starts[row], starts[row + 1])
            least = np.partition(scores[own], -self._most)[-self._most]
            is_high[own] = scores[own] >= least
        cells = np.flatnonzero(is_high)
        keys = pa.table({"row": rows[cells], "column": columns[cells], "score": scores[cells]})
        order = [("row", "ascending"), ("score", "descending"), ("column", "ascending")]
        cells = cells[pc.sort_indices(keys, sort_keys=order).to_numpy()]  # in half the time of np.lexsort
        cells = cells[np.arange(len(cells)) - np.searchsorted(rows[cells], rows[cells]) < self._most]
        place = slice(self._count, self._count + len(cells))
        self._columns[place], self._values[place] = columns[cells], scores[cells]
        self._lengths[items] = np.bincount(rows[cells], minlength=len(items))
        self._count = place.stop

    def to_csr(self) -> Any:
        return csr_of(offsets_of(self._lengths), self._columns[: self._count], self._values[: self._count])


def csr_of(starts: IntArray, columns: Any, values: Any, num_columns: int | None = None) -> Any:
    """Wraps arrays as csr [R, C] without copying (the constructor of scipy copies some). Default of C: R."""
    matrix = sp.csr_matrix((len(starts) - 1, len(starts) - 1 if num_columns is None else num_columns))
    kind = np.int32 if starts[-1] <= np.iinfo(np.int32).max else np.int64
    matrix.indptr, matrix.indices, matrix.data = starts.astype(kind), columns, values
    return matrix


@dataclass(frozen=True)
class NeighborLists:
    """Ranks items by the weighted sum of their similarities to the user's items."""

    indptr: IntArray
    """int64 [V + 1]"""
    items: IntArray
    """int64 [E], items of user v at indptr[v] : indptr[v + 1], ascending."""
    neighbors: Any
    """scipy csr [I, I], from `fit_neighbors`."""
    has_own_items: bool = True
    """Whether the user's own items may be in the list."""
    allowed: Mask | None = None
    """bool [I], the items that may be in a list; None: all."""
    weights: NDArray[np.float32] | None = None
    """float32 [E], from `last_item_weights`; None: every item weighs 1."""

    def score_items(self, user_rows: IntArray) -> Any:
        """Returns the scores of all items, scipy csr [B, I]."""
        starts = self.indptr[user_rows]
        lengths = self.indptr[user_rows + 1] - starts
        pairs = ranges(starts, lengths)
        weights = np.ones(len(pairs), np.float32) if self.weights is None else self.weights[pairs]
        users = sp.csr_matrix(
            (weights, self.items[pairs], offsets_of(lengths)), shape=(len(user_rows), self.neighbors.shape[0])
        )
        users.eliminate_zeros()
        return users @ self.neighbors

    def top_items(self, user_rows: IntArray, k: int) -> IntArray:
        """Returns item_index int64 [B, K], best first, then by index; -1 after the last item with a score above 0."""
        return self.list_best(user_rows, self.score_items(user_rows), k)

    def list_best(self, user_rows: IntArray, summed: Any, k: int) -> IntArray:
        """Returns the result of `top_items` from summed scores of these users."""
        is_listed = self.is_offered(user_rows, summed) & (summed.data > 0)
        return top_of_rows(np.diff(summed.indptr), summed.indices, np.where(is_listed, summed.data, -np.inf), k)

    def is_offered(self, user_rows: IntArray, summed: Any) -> Mask:
        """Returns whether each scored item may be in its user's list, bool [n], in the order of `summed.indices`."""
        is_offered = np.ones(summed.nnz, np.bool_) if self.allowed is None else self.allowed[summed.indices]
        left_out = self.left_out(user_rows)
        if len(left_out.items):
            is_offered &= ~left_out.contains(row_of_value(summed.indptr), summed.indices)
        return is_offered

    def left_out(self, user_rows: IntArray) -> ItemSets:
        """Returns these users' own items if lists must not contain them, else empty sets."""
        if self.has_own_items:
            return ItemSets.empty(len(user_rows))
        return ItemSets(self.indptr, self.items).select_users(user_rows)


LAST_ITEMS: Final = 10
"""Last distinct items of a user that neighbours may start from."""
PLACE_WEIGHT: Final = 0.8
"""Weight of an item, to the power of its position from the last."""


def last_item_weights(indptr: IntArray, last_time_ms: IntArray) -> NDArray[np.float32]:
    """Weighs each user's last 10 items by .8 ** position, the newest at position 0; older items by 0. float32 [E].

    Items of the same time share the position of the first of them, so either all of them count or none.

    By hand: items of the times 5, 9, 9 and 7 weigh .8 ** 3, 1, 1 and .8 ** 2.
    """
    lengths = np.diff(indptr)
    owner = repeat_rows(lengths)
    order = np.lexsort((-last_time_ms, owner))
    places = ranges(np.zeros(len(lengths), np.int64), lengths)
    is_later = np.diff(last_time_ms[order], prepend=0) == 0
    is_later[indptr[:-1][lengths > 0]] = False
    first = np.maximum.accumulate(np.where(is_later, 0, np.arange(len(order))))
    weights = np.zeros(len(order), np.float32)
    weights[order] = np.where(places[first] < LAST_ITEMS, PLACE_WEIGHT ** places[first], 0.0)
    return weights
