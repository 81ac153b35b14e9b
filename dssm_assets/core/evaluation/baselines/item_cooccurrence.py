"""Item co-occurrence: items that many users took together with the user's own items (item-based nearest neighbours).

Source: Sarwar et al., "Item-based collaborative filtering recommendation algorithms" (2001), section 3, with cosine
similarity over sets: similarity(i, j) = users of both / sqrt(users of i * users of j).

Memory is bounded by the items and FIT_PAIRS, beside what lies where `allocate` says: who took what and the neighbours. Time is
bounded by the pairs of items that users took together, to which a user of n items adds n squared: of a user's items only the
last MOST_ITEMS count as taken together.

Belongs here: neighbours and the scorer. Does not belong here: which days count, who took what (`taken_together.py`).

Shapes: V users, B users of a block, I items, P pairs asked for, E entries of a block's scores, K top-k.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from dssm_assets.core.arrays.ragged import Exclusions, IntArray, ranges
from dssm_assets.core.evaluation.baselines.fill import fill_up, place_of, places_behind
from dssm_assets.core.evaluation.interactions import Interactions
from dssm_assets.core.evaluation.places import Asked, Places, few_among, places_by_rank
from dssm_assets.core.evaluation.scorer import ScorerName

MOST_ITEMS: Final = 1000
"""Items of a user that count as taken together: the last ones."""
BLOCK_PAIRS: Final = 1 << 20
"""Pairs that are looked at at once."""

Numbers: TypeAlias = NDArray[np.int32]
Allocate: TypeAlias = Callable[[int, Any], NDArray[Any]]
"""Returns room for so many numbers of a kind."""


@dataclass(frozen=True)
class TakenTogether:
    """Which items each user took: those of user v are items[starts[v] : starts[v + 1]].

    Attributes:
        starts: int64 [V + 1].
        items: int32 [E], distinct within a user.
        num_items: I.
    """

    starts: IntArray
    items: Numbers
    num_items: int

    def blocks(self) -> Iterator[tuple[IntArray, Numbers]]:
        """Yields users and items of about BLOCK_PAIRS pairs at a time, in order."""
        for low in range(0, len(self.items), BLOCK_PAIRS):
            high = min(low + BLOCK_PAIRS, len(self.items))
            first, last = np.searchsorted(self.starts, (low, high - 1), side="right") - 1
            bounds = np.clip(self.starts[first : last + 2], low, high)
            yield np.repeat(np.arange(first, last + 1), bounds[1:] - bounds[:-1]), self.items[low:high]


@dataclass(frozen=True)
class TakenBy:
    """Which users took each item: those of item i are users[starts[i] : starts[i + 1]], ascending.

    Attributes:
        starts: int64 [I + 1].
        users: int32 [E].
        together: int64 [I], pairs of the item with an item of one of its users, itself included.
    """

    starts: IntArray
    users: Numbers
    together: IntArray


def last_items(window: Interactions, most_items: int = MOST_ITEMS) -> tuple[IntArray, Numbers]:
    """Returns how many items of each user count, and which: all, or the last most_items it took (then the lower index)."""
    lengths = np.diff(window.indptr)
    items = window.item_index.astype(np.int32)
    if not (lengths > most_items).any():
        return lengths, items
    order = np.lexsort((window.item_index, -window.last_time_ms, window.user_index))
    is_last = np.zeros(len(order), dtype=bool)
    is_last[order] = np.arange(len(order)) - np.repeat(window.indptr[:-1], lengths) < most_items
    return np.minimum(lengths, most_items), items[is_last]


def together_of(window: Interactions, most_items: int = MOST_ITEMS) -> TakenTogether:
    """Returns what the users of these interactions took; see `last_items`."""
    lengths, items = last_items(window, most_items)
    return TakenTogether(np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]), items, window.num_items)


def taken_by(taken: TakenTogether, allocate: Allocate) -> TakenBy:
    """Returns the other direction, by counting what each item has and putting each user at its place.

    Args:
        taken: who took what.
        allocate: makes the array of E users.
    """
    count, together = np.zeros(taken.num_items, np.int64), np.zeros(taken.num_items, np.int64)
    for users, items in taken.blocks():
        count += np.bincount(items, minlength=taken.num_items)
        lengths = taken.starts[users + 1] - taken.starts[users]
        together += np.bincount(items, weights=lengths, minlength=taken.num_items).astype(np.int64)
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(count)])
    placed, free = allocate(len(taken.items), np.int32), starts[:-1].copy()
    for users, items in taken.blocks():
        order = np.argsort(items, kind="stable")
        found, first, counts = np.unique(items[order], return_index=True, return_counts=True)
        placed[np.arange(len(items)) + np.repeat(free[found] - first, counts)] = users[order]
        free[found] += counts
    return TakenBy(starts, placed, together)


_CELLS = 1 << 20
"""Values that are partitioned at once."""


class BestColumns(NamedTuple):
    """Selected entries of all rows, one after another: best first within a row."""

    lengths: IntArray
    """int64 [R], selected entries of each row."""
    columns: IntArray
    """int64 [M]"""
    values: NDArray[np.float64]
    """float64 [M]"""

    def lists(self, k: int) -> IntArray:
        """Returns int64 [R, K], -1 behind the end of a row."""
        found = np.full((len(self.lengths), k), -1, dtype=np.int64)
        found[np.arange(k) < self.lengths[:, None]] = self.columns
        return found


def best_columns(matrix: Any, k: int, excluded: Exclusions | None = None) -> BestColumns:
    """Returns the k best entries of each row that are above 0.

    Args:
        matrix: scipy csr [R, C] without repeated entries, R below 2^32; not changed.
        k: most entries of a row.
        excluded: columns left out, one row per row of the matrix.
    """
    lengths = np.diff(matrix.indptr)
    row = np.repeat(np.arange(len(lengths)), lengths)
    columns, values = matrix.indices.astype(np.int64), matrix.data.astype(np.float64)
    is_candidate = values > 0
    if excluded is not None:
        width = matrix.shape[1]
        out = np.repeat(np.arange(len(lengths)), excluded.lengths) * width + excluded.indices
        is_candidate &= ~_is_among(row * width + columns, np.sort(out))
    row, columns, values = row[is_candidate], columns[is_candidate], values[is_candidate]
    near = _near_the_top(row, values, len(lengths), k)
    row, columns, values = row[near], columns[near], values[near]
    order = np.lexsort((columns, -values, row))
    row, columns, values = row[order], columns[order], values[order]
    starts = np.searchsorted(row, np.arange(len(lengths)))
    is_kept = np.arange(len(row)) - starts[row] < k
    kept = np.bincount(row[is_kept], minlength=len(lengths))
    return BestColumns(kept, columns[is_kept], values[is_kept])


def _is_among(keys: IntArray, few: IntArray) -> NDArray[np.bool_]:
    """Returns bool [E], whether each key is one of a few that are sorted: many times quicker than sorting the many."""
    if not len(few):
        return np.zeros(len(keys), dtype=bool)
    found: NDArray[np.bool_] = few[np.minimum(np.searchsorted(few, keys), len(few) - 1)] == keys
    return found


def _near_the_top(row: IntArray, values: NDArray[np.float64], rows: int, k: int) -> NDArray[np.bool_]:
    """Returns bool [E]: entries that may be among the k best of their row, all of those that are included.

    Compared are the values rounded to float32, which keeps their order but for new ties: only what ties with the k-th or is
    better is sorted exactly. Rows of about one length are partitioned side by side.

    Args:
        row: int64 [E], ascending.
        values: float64 [E].
        rows: R.
        k: most entries of a row.
    """
    counts = np.bincount(row, minlength=rows)
    bars = np.full(rows, -np.inf, dtype=np.float32)
    single, starts = values.astype(np.float32), np.cumsum(counts) - counts
    powers = np.ceil(np.log2(np.maximum(counts, 1))).astype(np.int64)
    for power in np.unique(powers[counts > k]):
        width = 1 << int(power)
        chosen = np.flatnonzero((powers == power) & (counts > k))
        for first in range(0, len(chosen), max(1, _CELLS // width)):
            block = chosen[first : first + max(1, _CELLS // width)]
            is_entry = np.arange(width) < counts[block, None]
            table = np.zeros((len(block), width), dtype=np.float32)
            table[is_entry] = single[ranges(starts[block], counts[block])]
            table.partition(width - k, axis=1)
            bars[block] = table[:, width - k]
    found: NDArray[np.bool_] = single >= bars[row]
    return found


FIT_PAIRS = 2_000_000
"""Pairs of items held at once, about."""


@dataclass(frozen=True)
class ItemCooccurrence:
    """Score of an item = sum of its similarities to the user's items; only items above 0, then popular ones."""

    users: Any
    """scipy csr [V, I], 1 where the user took the item."""
    neighbors: Any
    """scipy csr [I, I], row i: the most similar items of i."""
    order: IntArray
    """int64 [I], what lists are filled up with."""
    block_size: int
    name: str = ScorerName.ITEM_COOCCURRENCE

    def top_items(self, user_rows: IntArray, k: int, excluded: Exclusions | None) -> IntArray:
        """Returns item_index int64 [B, K]."""
        ranked = best_columns(self.users[user_rows] @ self.neighbors, k, excluded).lists(k)
        return fill_up(ranked, self.order, k, excluded)

    def places(self, asked: Asked, k: int) -> Places:
        """Returns the places of the pairs: of one with a score by the scores above its own, of any other behind all with one."""
        scores = self.users[asked.user_rows] @ self.neighbors
        row = np.repeat(np.arange(len(asked.user_rows)), np.diff(scores.indptr))
        column, place, pairs = scores.indices.astype(np.int64), self._place, len(asked.pair_row)
        rows, items = (
            np.concatenate(parts)
            for parts in ((asked.pair_row, asked.taken_row), (np.maximum(asked.pair_item, 0), asked.taken.indices))
        )
        width = scores.shape[1]
        found = few_among(rows * width + items, row * width + column)
        value = np.where(found >= 0, np.append(scores.data, 0.0)[found], 0.0)
        pair_value, (pair_rank, taken_rank) = value[:pairs], np.split(_ranks(value, items, place), [pairs])
        ahead = _ahead(asked, pair_value, scores)
        is_scored = scores.data > 0
        behind = places_behind(row[is_scored], place[column[is_scored]], asked, place[asked.pair_item], k)
        free = np.where(pair_value > 0, ahead, behind)
        return places_by_rank(asked, k, pair_rank=pair_rank, taken_rank=taken_rank, free=free)

    @cached_property
    def _place(self) -> IntArray:
        return place_of(self.order)


def _ranks(value: Any, item: IntArray, place: IntArray) -> IntArray:
    """Returns ranks: best score first, then the lower item; what has no score comes behind, by its place."""
    is_scored = value > 0
    order = np.lexsort((np.where(is_scored, item, place[item]), -value, ~is_scored))
    rank = np.empty(len(value), dtype=np.int64)
    rank[order] = np.arange(len(value))
    return rank


def _ahead(asked: Asked, pair_value: Any, scores: Any) -> IntArray:
    """Returns int64 [P], entries of the pair's row that come before it; 0 for a pair without a score."""
    ahead = np.zeros(len(pair_value), dtype=np.int64)
    scored = np.flatnonzero(pair_value > 0)
    starts = scores.indptr.astype(np.int64)
    lengths = np.diff(starts)[asked.pair_row[scored]]
    for first, end in _cuts(lengths):
        pairs, length = scored[first:end], lengths[first:end]
        stops = np.cumsum(length)
        at = np.arange(stops[-1]) + np.repeat(starts[asked.pair_row[pairs]] - (stops - length), length)
        value, than = scores.data[at], np.repeat(pair_value[pairs], length)
        is_ahead = value > than
        ties = np.flatnonzero(value == than)
        is_ahead[ties] = scores.indices[at[ties]] < np.repeat(asked.pair_item[pairs], length)[ties]
        ahead[pairs] = np.add.reduceat(is_ahead, stops - length, dtype=np.int64)
    return ahead


def fit_item_cooccurrence(
    window: Interactions, num_neighbors: int, order: IntArray, block_size: int = 256, most_items: int = MOST_ITEMS
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
    neighbors = fit_neighbors(together_of(window, most_items), num_neighbors)
    return item_cooccurrence(window, neighbors, order, block_size)


def item_cooccurrence(window: Interactions, neighbors: Any, order: IntArray, block_size: int = 256) -> ItemCooccurrence:
    """Returns the scorer of these users by neighbours that may come from more of them."""
    shape = (len(window.indptr) - 1, window.num_items)
    users = sp.csr_matrix((np.ones(len(window.item_index), np.float32), window.item_index, window.indptr), shape=shape)
    return ItemCooccurrence(users, neighbors, order, block_size)


def fit_neighbors(taken: TakenTogether, num_neighbors: int, allocate: Allocate = np.empty) -> Any:
    """Returns csr [I, I]: in row i the similarities of i's num_neighbors most similar others.

    Args:
        taken: who took what.
        num_neighbors: kept per item.
        allocate: makes the arrays of E users and of the neighbours.
    """
    by_item, num_items, count = taken_by(taken, allocate), taken.num_items, 0
    per_item = np.maximum(np.diff(by_item.starts), 1)
    most = min(num_neighbors, num_items) * num_items
    columns, values, lengths = allocate(most, np.int32), allocate(most, np.float64), np.zeros(num_items, np.int64)
    for start, end in _cuts(by_item.together):
        together = _counts(taken, by_item, start, end)
        best = best_columns(_similarities(together, start, per_item), num_neighbors)
        place = slice(count, count + len(best.columns))
        columns[place], values[place], lengths[start:end] = best.columns, best.values, best.lengths
        count = place.stop
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    return neighbors_of(starts, columns[:count], values[:count])


def neighbors_of(starts: IntArray, columns: Any, values: Any) -> Any:
    """Returns csr [I, I] over these very arrays."""
    matrix = sp.csr_matrix((len(starts) - 1, len(starts) - 1))
    kind = np.int32 if starts[-1] <= np.iinfo(np.int32).max else np.int64
    matrix.indptr, matrix.indices, matrix.data = starts.astype(kind), columns, values  # the constructor would copy parts
    return matrix


def _cuts(sizes: IntArray) -> Iterator[tuple[int, int]]:
    """Yields consecutive ranges (first, end), each of about FIT_PAIRS together; what alone has as many is alone."""
    is_large = sizes >= FIT_PAIRS
    is_new = np.diff(np.cumsum(sizes) // FIT_PAIRS, prepend=-1) > 0
    is_new[1:] |= is_large[1:] | is_large[:-1]
    starts = np.flatnonzero(is_new)
    yield from zip(starts.tolist(), [*starts[1:].tolist(), len(sizes)], strict=False)


def _counts(taken: TakenTogether, by_item: TakenBy, start: int, end: int) -> Any:
    """Returns csr [end - start, I]: how many users took each item of a range together with each item."""
    starts = by_item.starts[start : end + 1] - by_item.starts[start]
    users = np.asarray(by_item.users[by_item.starts[start] : by_item.starts[end]])
    if end - start == 1:
        return _counts_of_one(taken, users)
    items, lengths = _items_of(taken, users)
    ones = np.ones(len(items), np.float32)
    theirs = sp.csr_matrix((ones, items, np.concatenate([[0], np.cumsum(lengths)])), shape=(len(users), taken.num_items))
    whose = sp.csr_matrix((ones[:1].repeat(len(users)), np.arange(len(users)), starts), shape=(end - start, len(users)))
    return whose @ theirs


def _counts_of_one(taken: TakenTogether, users: Any) -> Any:
    """Returns csr [1, I]: how many of these users, who may be very many, took each item."""
    counts = np.zeros(taken.num_items, dtype=np.int64)
    for first, end in _cuts(taken.starts[users + 1] - taken.starts[users]):
        counts += np.bincount(_items_of(taken, users[first:end])[0], minlength=taken.num_items)
    return sp.csr_matrix(counts[None, :])


def _items_of(taken: TakenTogether, users: Any) -> tuple[Any, IntArray]:
    """Returns the items of users, one after the other, and how many each has."""
    starts = taken.starts[users]
    lengths = taken.starts[users + 1] - starts
    return np.asarray(taken.items[ranges(starts, lengths)]), lengths


def _similarities(together: Any, start: int, per_item: IntArray) -> Any:
    """Returns the similarities of a block of items to all, by co-occurrence counts; 0 of an item to itself."""
    row = np.repeat(np.arange(together.shape[0]), np.diff(together.indptr)) + start
    column = together.indices
    similarity = together.data.astype(np.float64) / np.sqrt(per_item[row].astype(np.float64) * per_item[column])
    similarity[row == column] = 0.0
    return sp.csr_matrix((similarity, column, together.indptr), shape=together.shape)
