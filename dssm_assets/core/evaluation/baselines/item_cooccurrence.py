"""Baseline `item_cooccurrence`: items that many users interacted with next to the user's own (item-based neighbours).

Source: Sarwar et al., "Item-based collaborative filtering recommendation algorithms" (2001), section 3, with cosine
similarity over sets: similarity(i, j) = users of both / sqrt(users of i * users of j).

Memory is bounded by the number of items and FIT_PAIRS; arrays that grow with users or neighbours are made by
`FitData.allocate`. Time is bounded by the pairs of items of each user: a user of n items adds n squared.

Shapes: V users, B users of a block, R rows, I items, E (user, item) pairs, K top-k.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from dssm_assets.core.arrays.ragged import IntArray, Mask, offsets_of, ranges, row_of_value
from dssm_assets.core.evaluation.baselines.fill import fill_up
from dssm_assets.core.evaluation.baselines.fit_data import Allocate, Arrays, FitData, UserItems
from dssm_assets.core.evaluation.interactions import Interactions

BLOCK_PAIRS: Final = 1 << 20
"""(user, item) pairs transposed at once."""
FIT_PAIRS: Final = 2_000_000
"""Pairs of items counted at once, about."""
SELECT_CELLS: Final = 1 << 20
"""Values partitioned at once."""
_KEY_BITS: Final = 63
_ROUNDING: Final = 1e-6
"""More than the relative error of a float32 product of a count and a rounded weight."""


def fit(data: FitData) -> Arrays:
    """Returns each item's most similar others as csr arrays, and the order from which lists are filled up."""
    neighbors = neighbors_of(data, 1)
    return {
        "starts": neighbors.indptr,
        "items": neighbors.indices,
        "similarities": neighbors.data,
        "order": data.popularity_order,
    }


def scorer(arrays: Arrays, window: Interactions, history: Interactions) -> ItemCooccurrenceScorer:
    """Returns the scorer of the window's users."""
    neighbors = csr_of(arrays["starts"], arrays["items"], arrays["similarities"])
    return item_cooccurrence_scorer(window, neighbors, arrays["order"])


@dataclass(frozen=True)
class ItemCooccurrenceScorer:
    """Score of an item = sum of its similarities to the user's items. Items above 0 are ranked, popular ones follow.

    Ties go to the lower item_index.
    """

    users: Any
    """scipy csr [V, I], 1 where the user interacted with the item."""
    neighbors: Any
    """scipy csr [I, I], row i: the most similar items of i."""
    order: IntArray
    """int64 [I], what lists are filled up from."""
    block_size: int = 256
    name: str = "item_cooccurrence"
    _summed: list[tuple[IntArray, Any]] = field(default_factory=list, init=False)
    """Of the users that were asked for last: users with many items are asked for again, for longer lists."""

    def top_items(self, user_rows: IntArray, k: int) -> IntArray:
        return fill_up(best_columns(self._sum_similarities(user_rows), k).lists(k), self.order, k)

    def _sum_similarities(self, user_rows: IntArray) -> Any:
        """Returns the scores of the users' neighbours, scipy csr [B, I]."""
        for known, sums in self._summed:
            places = np.searchsorted(known[:-1], user_rows)
            if np.array_equal(known[places], user_rows):
                return sums[places]
        sums = self.users[user_rows] @ self.neighbors
        if len(user_rows):
            self._summed[:] = [(user_rows, sums)]
        return sums


def item_cooccurrence_scorer(window: Interactions, neighbors: Any, order: IntArray) -> ItemCooccurrenceScorer:
    """Returns the scorer of the users of these interactions, by neighbours that were fitted on these or more users."""
    shape = (len(window.indptr) - 1, window.num_items)
    users = sp.csr_matrix((np.ones(len(window.item_index), np.float32), window.item_index, window.indptr), shape=shape)
    return ItemCooccurrenceScorer(users, neighbors, order)


def neighbors_of(data: FitData, min_common_users: int) -> Any:
    """Returns the neighbours of `fit_neighbors` for these interactions, fitted before or now."""
    if min_common_users in data.neighbors:
        return data.neighbors[min_common_users]
    return fit_neighbors(data.user_items, data.settings.cooccurrence_neighbors, data.allocate, min_common_users)


def with_neighbors(data: FitData, min_common_users: Sequence[int], of_items: Mask | None = None) -> FitData:
    """Returns the data with neighbours for several numbers of common users; see `fit_all_neighbors`."""
    fits = fit_all_neighbors(data.user_items, data.settings.cooccurrence_neighbors, data.allocate, min_common_users, of_items)
    return replace(data, neighbors=dict(zip(min_common_users, fits, strict=True)))


def fit_neighbors(users: UserItems, num_neighbors: int, allocate: Allocate = np.empty, min_common_users: int = 1) -> Any:
    """Returns `fit_all_neighbors` for one number of common users."""
    return fit_all_neighbors(users, num_neighbors, allocate, (min_common_users,))[0]


def fit_all_neighbors(
    users: UserItems,
    num_neighbors: int,
    allocate: Allocate,
    min_common_users: Sequence[int],
    of_items: Mask | None = None,
) -> tuple[Any, ...]:
    """Returns csr [I, I] for each number of common users: row i holds the similarities of i's most similar others.

    Ties go to the lower index. An item is not its own neighbour: that the user has it already says nothing about what goes with it.
    Co-occurrences are counted once for all numbers.

    Args:
        users: the items of every user.
        num_neighbors: kept per item.
        allocate: makes the arrays of E users and of the neighbours.
        min_common_users: fewest users of both items. Two items of one user each, who is the same, have the highest similarity, 1.
        of_items: bool [I], the items whose neighbours are wanted, the rows of others are empty; None: all.
    """
    by_item = transpose(users, allocate)
    users_per_item = np.maximum(np.diff(by_item.starts), 1)
    if of_items is not None:
        by_item = by_item.keep(of_items, allocate)
    rare_first = np.argsort(users_per_item, kind="stable").astype(np.int32)
    by_rarity = _renumber_items(users, np.argsort(rare_first).astype(np.int32), allocate)
    fits = [_Neighbors(users.num_items, num_neighbors, allocate, least) for least in min_common_users]
    num_single = num_neighbors + 1 if min(min_common_users) < 2 else 0  # the item itself may be one of them
    for start, stop in _even_ranges(by_item.item_pairs):
        found = _count_cooccurrences(by_rarity, by_item, start, stop, num_single)
        found = found._replace(column=rare_first[found.column])
        others = found.select(found.column != found.row + start)
        for one in fits:
            one.add(others, start, stop, users_per_item)
    return tuple(one.matrix() for one in fits)


class _ItemPairs(NamedTuple):
    """Pairs of an item of a range and any item, by the former."""

    row: Any
    """Integers [P], ascending: the item's place in the range."""
    column: Any
    """Integers [P], the other item."""
    common: IntArray
    """int64 [P], users of both."""

    def select(self, chosen: Mask) -> _ItemPairs:
        """Returns the chosen pairs [P]."""
        return self if chosen.all() else _ItemPairs(*(of_pair[chosen] for of_pair in self))


class _Neighbors:
    """The most similar items of each item, a range of items after the other."""

    def __init__(self, num_items: int, num_neighbors: int, allocate: Allocate, min_common_users: int) -> None:
        most = min(num_neighbors, num_items) * num_items
        self._columns, self._values = allocate(most, np.int32), allocate(most, np.float64)
        self._lengths, self._count = np.zeros(num_items, np.int64), 0
        self._num_neighbors, self._least = num_neighbors, min_common_users

    def add(self, pairs: _ItemPairs, start: int, stop: int, users_per_item: IntArray) -> None:
        """Adds a range of items, by their pairs with other items."""
        kept = pairs.select(pairs.common >= self._least)
        best = _most_similar(kept, start, stop, users_per_item, self._num_neighbors)
        place = slice(self._count, self._count + len(best.columns))
        self._columns[place], self._values[place] = best.columns, best.values
        self._lengths[start:stop] = best.lengths
        self._count = place.stop

    def matrix(self) -> Any:
        """Returns the similarities of all items as csr [I, I]."""
        return csr_of(offsets_of(self._lengths), self._columns[: self._count], self._values[: self._count])


def csr_of(starts: IntArray, columns: Any, values: Any, num_columns: int | None = None) -> Any:
    """Returns csr [R, C], square if C is not given, over these very arrays; the constructor would copy some."""
    matrix = sp.csr_matrix((len(starts) - 1, len(starts) - 1 if num_columns is None else num_columns))
    kind = np.int32 if starts[-1] <= np.iinfo(np.int32).max else np.int64
    matrix.indptr, matrix.indices, matrix.data = starts.astype(kind), columns, values
    return matrix


@dataclass(frozen=True)
class ItemUsers:
    """The users of each item: those of item i are users[starts[i] : starts[i + 1]], ascending.

    Attributes:
        starts: int64 [I + 1].
        users: int32 [E].
        item_pairs: int64 [I], pairs of the item with an item of one of its users, itself included.
    """

    starts: IntArray
    users: NDArray[np.int32]
    item_pairs: IntArray

    def keep(self, is_kept: Mask, allocate: Allocate) -> ItemUsers:
        """Returns the users of some items (bool [I]); the others have none."""
        starts = offsets_of(np.diff(self.starts) * is_kept)
        users, end = allocate(int(starts[-1]), np.int32), 0
        for item, user in _pair_blocks(self.starts, self.users):
            kept = user[is_kept[item]]
            users[end : end + len(kept)] = kept
            end += len(kept)
        return ItemUsers(starts, users, self.item_pairs * is_kept)


def transpose(users: UserItems, allocate: Allocate) -> ItemUsers:
    """Returns the users of each item, by counting sort in blocks.

    Args:
        users: the items of each user.
        allocate: makes the array of E users.
    """
    count, item_pairs = np.zeros(users.num_items, np.int64), np.zeros(users.num_items, np.int64)
    for user, item in _pair_blocks(users.starts, users.items):
        count += np.bincount(item, minlength=users.num_items)
        lengths = users.starts[user + 1] - users.starts[user]
        item_pairs += np.bincount(item, weights=lengths, minlength=users.num_items).astype(np.int64)
    starts = offsets_of(count)
    result, free = allocate(len(users.items), np.int32), starts[:-1].copy()
    for user, item in _pair_blocks(users.starts, users.items):
        order = np.argsort(item, kind="stable")
        found, first, counts = np.unique(item[order], return_index=True, return_counts=True)
        result[np.arange(len(item)) + np.repeat(free[found] - first, counts)] = user[order]
        free[found] += counts
    return ItemUsers(starts, result, item_pairs)


def _pair_blocks(starts: IntArray, values: NDArray[np.int32]) -> Iterator[tuple[IntArray, NDArray[np.int32]]]:
    """Yields rows and values, those of row r are values[starts[r] : starts[r + 1]], about BLOCK_PAIRS at a time, in order."""
    for low in range(0, len(values), BLOCK_PAIRS):
        high = min(low + BLOCK_PAIRS, len(values))
        first, last = np.searchsorted(starts, (low, high - 1), side="right") - 1
        bounds = np.clip(starts[first : last + 2], low, high)
        yield np.repeat(np.arange(first, last + 1), np.diff(bounds)), values[low:high]


def _even_ranges(sizes: IntArray) -> Iterator[tuple[int, int]]:
    """Yields consecutive ranges (start, stop) of about FIT_PAIRS each; a single larger one is alone."""
    is_large = sizes >= FIT_PAIRS
    is_new = np.diff(np.cumsum(sizes) // FIT_PAIRS, prepend=-1) > 0
    is_new[1:] |= is_large[1:] | is_large[:-1]
    starts = np.flatnonzero(is_new)
    yield from zip(starts.tolist(), [*starts[1:].tolist(), len(sizes)], strict=False)


def _renumber_items(users: UserItems, numbers: NDArray[np.int32], allocate: Allocate) -> Any:
    """Returns the new numbers [I] of each user's items, as the values and as the columns of csr [V, I]."""
    items = allocate(len(users.items), np.int32)
    for low in range(0, len(items), BLOCK_PAIRS):
        items[low : low + BLOCK_PAIRS] = numbers[users.items[low : low + BLOCK_PAIRS]]
    return csr_of(users.starts, items, items, users.num_items)


def _count_cooccurrences(users: Any, by_item: ItemUsers, start: int, stop: int, num_single: int) -> _ItemPairs:
    """Returns how many users have both an item of the range and each item, for pairs that have some.

    Most pairs have one user. Of an item's they are the more similar the rarer the other item is, so the first are enough.

    Args:
        users: csr [V, I], each user's items as values, numbered from the rarest on.
        by_item: the users of each item, by its index.
        num_single: pairs of one user that are kept of each item, those with the rarest items.
    """
    user = np.asarray(by_item.users[by_item.starts[start] : by_item.starts[stop]])
    if stop - start == 1:
        return _count_cooccurrences_of_one(users, user)
    num_pairs, bits = by_item.item_pairs[start:stop], users.shape[1].bit_length()
    kind = np.int32 if stop - start << bits <= np.iinfo(np.int32).max else np.int64
    keys = np.repeat(np.arange(stop - start, dtype=kind) << bits, num_pairs)
    keys += users[user].data
    keys.sort()  # a key is there once for each user
    is_first = np.ones(len(keys) + 1, np.bool_)
    np.not_equal(keys[1:], keys[:-1], out=is_first[1:-1])
    is_kept = is_first[:-1] & ~is_first[1:]
    ends = np.flatnonzero(is_first[1:] & ~is_first[:-1])
    if num_single:
        single = np.flatnonzero(is_first[:-1] & is_first[1:])
        starts = np.searchsorted(single, offsets_of(num_pairs))
        is_kept[single[ranges(starts[:-1], np.minimum(np.diff(starts), num_single))]] = True
    kept = np.flatnonzero(is_kept)
    common, is_common = np.ones(len(kept), np.int64), ~is_first[kept + 1]
    common[is_common] = ends - kept[is_common] + 1
    keys = keys[kept]
    return _ItemPairs(keys >> bits, keys & (1 << bits) - 1, common)


def _count_cooccurrences_of_one(users: Any, user: Any) -> _ItemPairs:
    """Returns how many of the users of one item, who may be very many, have each item."""
    counts = np.zeros(users.shape[1], dtype=np.int64)
    for start, stop in _even_ranges(users.indptr[user + 1] - users.indptr[user]):
        counts += np.bincount(users[user[start:stop]].data, minlength=len(counts))
    column = np.flatnonzero(counts)
    return _ItemPairs(np.zeros(len(column), np.int64), column, counts[column])


def _most_similar(pairs: _ItemPairs, start: int, stop: int, users_per_item: IntArray, num_neighbors: int) -> BestColumns:
    """Returns the most similar other items of a range of items, by their co-occurrence counts.

    Within a row, count / sqrt(users of the column) orders items as the similarity does. It is compared as float32, with room for
    rounding, and only what may be among the best gets its similarity in float64.
    """
    weights = (1.0 / np.sqrt(users_per_item)).astype(np.float32)
    values = pairs.common.astype(np.float32) * weights[pairs.column]
    row, column, common = pairs.select(_near_the_top(pairs.row, values, stop - start, num_neighbors, slack=_ROUNDING))
    users = users_per_item[start + row].astype(np.float64) * users_per_item[column]
    return _order_best(row, column, common.astype(np.float64) / np.sqrt(users), stop - start, num_neighbors)


class BestColumns(NamedTuple):
    """The selected entries of all rows, one row after the other, best first within a row."""

    lengths: IntArray
    """int64 [R], selected entries of each row."""
    columns: IntArray
    """int64 [M]"""
    values: NDArray[np.float64]
    """float64 [M]"""

    def lists(self, k: int) -> IntArray:
        """Returns int64 [R, K], -1 after the end of a row."""
        found = np.full((len(self.lengths), k), -1, dtype=np.int64)
        found[np.arange(k) < self.lengths[:, None]] = self.columns
        return found


def best_columns(matrix: Any, k: int) -> BestColumns:
    """Returns the k largest entries of each row that are above 0, ties to the lower column.

    Args:
        matrix: scipy csr [R, C] without repeated entries, R below 2^32; not changed.
        k: most entries of a row.
    """
    num_rows, is_positive = matrix.shape[0], matrix.data > 0
    row, columns, values = row_of_value(matrix.indptr)[is_positive], matrix.indices[is_positive], matrix.data[is_positive]
    near = _near_the_top(row, values.astype(np.float32), num_rows, k)
    return _order_best(row[near], columns[near], values[near].astype(np.float64), num_rows, k)


def _order_best(row: Any, columns: Any, values: NDArray[np.float64], num_rows: int, k: int) -> BestColumns:
    """Returns the first k entries of each row, largest first, ties to the lower column."""
    distinct, place = np.unique(-values, return_inverse=True)
    value_bits, column_bits = len(distinct).bit_length(), int(columns.max(initial=0)).bit_length()
    if num_rows.bit_length() + value_bits + column_bits < _KEY_BITS:
        # One sort of numbers takes a tenth of the time of a sort by three keys.
        key = (row.astype(np.int64) << value_bits | place) << column_bits | columns
        key.sort()
        row, columns = key >> value_bits + column_bits, key & (1 << column_bits) - 1
        values = -distinct[key >> column_bits & (1 << value_bits) - 1]
    else:
        order = np.lexsort((columns, -values, row))
        row, columns, values = row[order], columns[order].astype(np.int64), values[order]
    starts = np.searchsorted(row, np.arange(num_rows))
    is_best = np.arange(len(row)) - starts[row] < k
    return BestColumns(np.bincount(row[is_best], minlength=num_rows), columns[is_best], values[is_best])


def _near_the_top(row: Any, values: NDArray[np.float32], num_rows: int, k: int, slack: float = 0.0) -> Mask:
    """Returns bool [E]: the entries that may be among the k largest of their row; all that are, are included.

    float32 keeps the order of numbers except for new ties, so only entries that tie with the k-th or exceed it need an exact
    sort. Rows of about the same length are partitioned together.

    Args:
        row: integers [E], ascending.
        values: above 0 [E].
        num_rows: R.
        k: most entries of a row.
        slack: fraction by which an entry may be below the k-th and is included.
    """
    counts = np.bincount(row, minlength=num_rows)
    bars = np.full(num_rows, -np.inf, dtype=np.float32)
    starts = np.cumsum(counts) - counts
    powers = np.ceil(np.log2(np.maximum(counts, 1))).astype(np.int64)
    for power in np.unique(powers[counts > k]):
        width = 1 << int(power)
        chosen = np.flatnonzero((powers == power) & (counts > k))
        for first in range(0, len(chosen), max(1, SELECT_CELLS // width)):
            block = chosen[first : first + max(1, SELECT_CELLS // width)]
            is_entry = np.arange(width) < counts[block, None]
            table = np.zeros((len(block), width), dtype=np.float32)
            table[is_entry] = values[ranges(starts[block], counts[block])]
            table.partition(width - k, axis=1)
            bars[block] = table[:, width - k] * np.float32(1 - slack)
    result: Mask = values >= bars[row]
    return result
