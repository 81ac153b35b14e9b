"""Rows of different lengths as one flat array of values and the offsets of each row (CSR layout); sets of items per user.

Letters: R rows, n values of all rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float32]
Mask = NDArray[np.bool_]
Offsets = NDArray[np.int64]
"""Bounds of each row's values in the flat array [R + 1]: ascending, the first 0, the last n."""


def offsets_of(lengths: Any) -> Offsets:
    """Returns the offsets [0, l0, l0 + l1, ...] of rows with the lengths [l0, l1, ...]."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def row_of_value(offsets: Offsets) -> IntArray:
    """Returns the row number of each value [n]."""
    return repeat_rows(np.diff(offsets))


def repeat_rows(lengths: Any) -> IntArray:
    """Repeats each row number as often as the row has values [n]: repeat_rows([2, 0, 1]) is [0, 0, 2]."""
    return np.repeat(np.arange(len(lengths), dtype=np.int64), lengths)


def ranges(starts: Any, lengths: Any) -> IntArray:
    """Returns the positions start, start + 1, ... of every range, one range after the other.

    Example: ranges([5, 0, 9], [2, 0, 3]) is [5, 6, 9, 10, 11].
    """
    offsets = offsets_of(lengths)
    return np.asarray(np.arange(offsets[-1], dtype=np.int64) + np.repeat(starts - offsets[:-1], lengths))


def bisect_ranges(starts: IntArray, ends: IntArray, is_before: Callable[[IntArray, IntArray], Mask]) -> IntArray:
    """Searches all ranges at once. Returns the first position in each range where `is_before` is false; the range's end if it is true everywhere.

    Args:
        is_before: called with positions, and with the range number of each. Within a range it must be true first, then false.
    """
    low, high = starts.copy(), ends.copy()
    while len(unknown := np.flatnonzero(low < high)):
        middle = low[unknown] + (high[unknown] - low[unknown]) // 2
        found = is_before(middle, unknown)
        low[unknown[found]] = middle[found] + 1
        high[unknown[~found]] = middle[~found]
    return low


def combine_chunks(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Returns the column as one contiguous array; a single chunk is not copied."""
    if not isinstance(column, pa.ChunkedArray):
        return column
    if column.num_chunks == 1:
        return column.chunk(0)
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def is_list(arrow_type: pa.DataType) -> bool:
    return bool(pat.is_list(arrow_type) or pat.is_large_list(arrow_type) or pat.is_fixed_size_list(arrow_type))


def is_text(arrow_type: pa.DataType) -> bool:
    return bool(pat.is_string(arrow_type) or pat.is_large_string(arrow_type) or pat.is_string_view(arrow_type))


def list_lengths(column: pa.Array | pa.ChunkedArray) -> IntArray:
    """Returns the number of values in each list [R], 0 for a null list."""
    return np.asarray(pc.fill_null(pc.list_value_length(column), 0), np.int64)


def flatten(array: pa.Array) -> tuple[pa.Array, Offsets]:
    """Returns the values of a list array, and their offsets. A null list has no values."""
    return array.flatten(), offsets_of(list_lengths(array))


def filter_values(values: pa.Array, offsets: Offsets, mask: Mask) -> tuple[pa.Array, Offsets]:
    """Returns the values where the mask is true, and their offsets."""
    if mask.all():
        return values, offsets
    return values.filter(pa.array(mask)), offsets_of(mask)[offsets]


def build_lists(values: pa.Array, offsets: Offsets, nulls: Mask | None = None) -> pa.Array:
    """Returns the list array with these values and offsets. Rows marked in `nulls` are null."""
    mask = None if nulls is None or not nulls.any() else pa.array(nulls)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values, mask=mask)


def null_mask(array: pa.Array) -> Mask:
    """Returns a mask that is true where the value is null."""
    return np.asarray(array.is_null())


def mask_numbers(values: NDArray[Any], nulls: Mask) -> pa.Array:
    """Returns numbers as an array, null where the mask is true."""
    return pa.array(values, mask=nulls if nulls.any() else None)


def number_values(values: pa.Array) -> tuple[IntArray, IntArray]:
    """Numbers the distinct values in order of first occurrence. Returns each number's first position [M], and each value's number [n]."""
    numbers = np.asarray(values.dictionary_encode().indices, np.int64)
    return np.flatnonzero(np.diff(np.maximum.accumulate(numbers), prepend=-1)), numbers


def row_blocks(count: int, size: int) -> Iterator[IntArray]:
    """Yields the rows 0 .. count - 1 in blocks of `size`; the last may be smaller."""
    for begin in range(0, count, size):
        yield np.arange(begin, min(begin + size, count), dtype=np.int64)


def map_leaves(values: pa.Array, change: Callable[[pa.Array], pa.Array]) -> pa.Array:
    """Applies `change` to the innermost values of lists of any depth; nulls stay."""
    if not is_list(values.type):
        return change(values)
    flat, offsets = flatten(values)
    return build_lists(map_leaves(flat, change), offsets, null_mask(values))


def without_nulls(values: pa.Array) -> pa.Array:
    """Drops nulls from the innermost lists; a null list becomes an empty one."""
    flat, offsets = flatten(values)
    if is_list(flat.type):
        return build_lists(without_nulls(flat), offsets)
    return build_lists(*filter_values(flat, offsets, ~null_mask(flat)))


def wrap_in_lists(values: pa.Array) -> pa.Array:
    """Turns each value into a list of one value, and a null into an empty list."""
    return build_lists(values.drop_null(), offsets_of(~null_mask(values)))


class ItemSets(NamedTuple):
    """Sets of items for U users: user u has `items[offsets[u]:offsets[u + 1]]`."""

    offsets: Offsets
    """int64 [U + 1]"""
    items: NDArray[np.integer[Any]]
    """Item indices [E]."""

    @classmethod
    def empty(cls, num_users: int) -> ItemSets:
        """Returns an empty set for each user."""
        return cls(np.zeros(num_users + 1, np.int64), np.zeros(0, np.int64))

    @classmethod
    def of_pairs(cls, users: IntArray, items: IntArray, num_users: int) -> ItemSets:
        """Groups (user, item) pairs by user, items ascending. Skips pairs with a -1."""
        is_known = (users >= 0) & (items >= 0)
        width = int(items.max(initial=0)) + 1
        pairs = np.unique(users[is_known] * width + items[is_known])
        return cls(offsets_of(np.bincount(pairs // width, minlength=num_users)), pairs % width)

    @property
    def lengths(self) -> IntArray:
        return np.diff(self.offsets)

    @property
    def users(self) -> IntArray:
        return row_of_value(self.offsets)

    def select_users(self, users: IntArray) -> ItemSets:
        """Returns the sets of the given users, in that order."""
        lengths = self.lengths[users]
        return ItemSets(offsets_of(lengths), self.items[ranges(self.offsets[users], lengths)])

    def find(self, items: NDArray[np.integer[Any]]) -> tuple[IntArray, Mask]:
        """Looks up items [U, C] in their users' sets. Returns positions in `self.items`, and whether each item was found.

        Sets must be ascending. The item -1 is never found.

        By hand: the sets are [3, 5] and [3], so `self.items` is [3, 5, 3]. Items [[5, -1], [3, 5]]: 5 is found at position 1, 3 at position
        2.
        """
        if not len(self.items):
            return np.zeros(items.shape, np.int64), np.zeros(items.shape, np.bool_)
        width = int(max(items.max(initial=0), self.items.max())) + 2
        pairs, wanted = self.users * width + self.items, np.arange(len(items))[:, None] * width + items
        found = np.minimum(np.searchsorted(pairs, wanted), len(pairs) - 1)
        return found, (pairs[found] == wanted) & (items >= 0)

    def contains(self, users: IntArray, items: NDArray[np.integer[Any]]) -> Mask:
        """Returns whether each item is in its user's set. Users and items are broadcast; the item -1 is in no set.

        By hand: user 0 has the items 3 and 5. Users [[0]] with items [[5, -1, 4]] give [[True, False, False]].
        """
        width = int(max(items.max(initial=0), self.items.max(initial=0))) + 2  # -1 of a user equals no item of another
        pairs, wanted = self.users * width + self.items, users * width + items
        is_found = pc.is_in(pa.array(wanted.ravel()), value_set=pa.array(pairs)).to_numpy(zero_copy_only=False)
        return np.asarray(is_found.reshape(wanted.shape) & (items >= 0))
