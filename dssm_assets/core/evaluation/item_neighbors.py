"""Finds neighbours of items (other items with many of the same users), and ranks the neighbours of a user's items.

Source: Sarwar et al., "Item-based collaborative filtering recommendation algorithms" (2001), section 3, with damped cosine
similarity: similarity(i, j) = users of both / sqrt((users of i + 5) * (users of j + 5)). The damping lowers similarities based on
few users, see Bell and Koren, "Improved neighborhood-based collaborative filtering" (2007).

Time grows with the pairs of items of each user: a user with n items adds n squared.

Shapes: V users, B users of a block, I items, E (user, item) pairs, K top-k.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from dssm_assets.core.arrays.ordering import top_of_rows
from dssm_assets.core.arrays.ragged import IntArray, ItemSets, Mask, offsets_of, ranges, repeat_rows, row_of_value
from dssm_assets.core.evaluation.scorer import keep_first

NUM_NEIGHBORS: Final = 1000
"""Most neighbours of an item. The number limits time and memory; it is not tuned for quality."""
DAMPING: Final = 5.0
"""Added to each item's number of users, so that items with one common user are less similar than items with many."""
FIT_PAIRS: Final = 2_000_000
"""About so many pairs of items are counted at once."""

Allocate: TypeAlias = Callable[[int, Any], NDArray[Any]]
"""Called with a length and a dtype. Returns an array, in memory or in a file."""


def fit_neighbors(
    users: ItemSets,
    num_items: int,
    allocate: Allocate = np.empty,
    *,
    of_items: Mask | None = None,
    num_neighbors: int = NUM_NEIGHBORS,
) -> Any:
    """Returns scipy csr [I, I]: row i has the similarities of i's neighbours, in no order.

    An item is not its own neighbour, since the user has it already. Among equally similar items, lower indices are kept.

    By hand: two items with one user each, the same user, have similarity 1 / 6; with the same four users each, 4 / 9.

    Args:
        users: each user's items in the window.
        num_items: I.
        allocate: allocates the arrays of the neighbours.
        of_items: bool [I], marks the items that get neighbours; other rows are empty. None: all.
    """
    by_user = csr_of(users.offsets, users.items, np.ones(len(users.items), np.int32), num_items)
    by_item = by_user.T.tocsr()
    damped = np.diff(by_item.indptr) + DAMPING
    pairs = by_item @ users.lengths if of_items is None else (by_item @ users.lengths) * of_items
    wanted = np.flatnonzero(pairs)
    room = int(np.minimum(pairs, min(num_neighbors, num_items)).sum())
    columns, values = allocate(room, np.int32), allocate(room, np.float64)
    lengths, count = np.zeros(num_items, np.int64), 0
    # Each range of items has about FIT_PAIRS pairs.
    for items in np.split(wanted, np.flatnonzero(np.diff(np.cumsum(pairs[wanted]) // FIT_PAIRS)) + 1) if len(wanted) else ():
        together = by_item[items] @ by_user
        rows, near = row_of_value(together.indptr), together.indices
        scores = np.where(near == items[rows], 0.0, together.data / np.sqrt(damped[items][rows] * damped[near]))
        cells = np.flatnonzero(_is_highest(together.indptr, near, scores, num_neighbors))
        place = slice(count, count + len(cells))
        columns[place], values[place] = near[cells], scores[cells]
        lengths[items] = np.bincount(rows[cells], minlength=len(items))
        count = place.stop
    return csr_of(offsets_of(lengths), columns[:count], values[:count])


def _is_highest(starts: IntArray, columns: NDArray[np.int32], scores: NDArray[np.float64], most: int) -> Mask:
    """Marks the `most` highest scores above 0 of each row, bool [n]. Ties go to the lowest columns."""
    is_high = scores > 0
    for row in np.flatnonzero(np.diff(starts) > most):
        own = slice(starts[row], starts[row + 1])
        least = np.partition(scores[own], -most)[-most]
        is_high[own] &= scores[own] >= least
        surplus = np.count_nonzero(is_high[own]) - most
        if surplus > 0:
            ties = own.start + np.flatnonzero(scores[own] == least)
            is_high[ties[np.argsort(columns[ties])[-surplus:]]] = False
    return is_high


def csr_of(starts: IntArray, columns: Any, values: Any, num_columns: int | None = None) -> Any:
    """Wraps arrays as csr [R, C] without a copy; scipy's constructor would copy some. C is R by default."""
    matrix = sp.csr_matrix((len(starts) - 1, len(starts) - 1 if num_columns is None else num_columns))
    kind = np.int32 if starts[-1] <= np.iinfo(np.int32).max else np.int64
    matrix.indptr, matrix.indices, matrix.data = starts.astype(kind), columns, values
    return matrix


@dataclass(frozen=True)
class NeighborLists:
    """Scores an item by the weighted sum of its similarities to the user's items."""

    indptr: IntArray
    """int64 [V + 1]"""
    items: IntArray
    """int64 [E]; user v has items[indptr[v] : indptr[v + 1]], ascending."""
    neighbors: Any
    """scipy csr [I, I] from `fit_neighbors`."""
    has_own_items: bool = True
    """Whether the user's own items may be in the list."""
    allowed: Mask | None = None
    """bool [I], the items that may be in a list. None: all."""
    weights: NDArray[np.float32] | None = None
    """float32 [E] from `last_item_weights`. None: 1 for each item."""

    def score_items(self, user_rows: IntArray) -> Any:
        """Returns the scores of all items, scipy csr [B, I]; an item that is not stored has 0."""
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
        """Returns item_index int64 [B, K], best first, ties by index. Items with a score above 0 are listed; then -1."""
        return self.list_best(user_rows, self.score_items(user_rows), k)

    def list_best(self, user_rows: IntArray, summed: Any, k: int) -> IntArray:
        """Returns the lists of `top_items`, from scores that `score_items` returned for these users."""
        is_listed = summed.data > 0 if self.allowed is None else (summed.data > 0) & self.allowed[summed.indices]
        own = self.left_out(user_rows)
        longest = k + int(own.lengths.max(initial=0))  # k are left without the own items
        top = top_of_rows(np.diff(summed.indptr), summed.indices, np.where(is_listed, summed.data, -np.inf), longest)
        return keep_first(top, ~own.contains(np.arange(len(top))[:, None], top), k) if len(own.items) else top

    def left_out(self, user_rows: IntArray) -> ItemSets:
        """Returns these users' own items if lists must not contain them, else empty sets."""
        if self.has_own_items:
            return ItemSets.empty(len(user_rows))
        return ItemSets(self.indptr, self.items).select_users(user_rows)


LAST_ITEMS: Final = 10
"""Neighbours are looked up for so many of a user's last distinct items."""
PLACE_WEIGHT: Final = 0.8
"""An item's weight is this number to the power of its position, counted back from the user's last item."""


def last_item_weights(indptr: IntArray, last_time_ms: IntArray) -> NDArray[np.float32]:
    """Weighs each user's last 10 items by .8 ** position, float32 [E]. The newest has position 0. Older items weigh 0.

    Items with the same time share their lowest position, so all count or none.

    By hand: items with times 5, 9, 9 and 7 weigh .8 ** 3, 1, 1 and .8 ** 2.
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
