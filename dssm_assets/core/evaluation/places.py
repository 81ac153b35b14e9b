"""At which place of a user's list an item stands, found without making the list.

A list is an order of all items; the place of an item is the number of items before it. Leaving out what the user took in the
window moves an item forward by as many of those as stood before it.

Belongs here: what is asked, the answer, counting within rows. Does not belong here: the orders (`scorer.py`, `baselines/`).

Shapes: B users of a block, P pairs asked for, E entries of rows, K length of the lists.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dssm_assets.core.arrays.ragged import Exclusions, IntArray


@dataclass(frozen=True)
class Asked:
    """Users of a block and the items that are looked for in their lists.

    Attributes:
        user_rows: int64 [B], rows of the evaluated users.
        pair_row: int64 [P], row of the pair's user in user_rows, ascending.
        pair_item: int64 [P], -1 for an item outside the corpus, which stands in no list.
        taken: the window's items of each of these users.
    """

    user_rows: IntArray
    pair_row: IntArray
    pair_item: IntArray
    taken: Exclusions

    @property
    def taken_row(self) -> IntArray:
        """Returns the row of each item of `taken`."""
        return np.repeat(np.arange(len(self.user_rows)), self.taken.lengths)


class Places(NamedTuple):
    """Places of the pairs, from 0; K where the item is not among the first K."""

    free: IntArray
    """int64 [P], in lists of all items."""
    fresh: IntArray
    """int64 [P], in lists without what the user took in the window."""


def hit_ranks(top_items: IntArray, pair_row: IntArray, pair_item: IntArray) -> IntArray:
    """Returns, for each truth pair, the position (from 0) at which its item first stands in the user's list, else K.

    Position counts places of the list as handed out: -1 is no item and a duplicate wastes its place, so
    `hits at k = pairs with rank < k` equals |set(list[:k]) & set(truth)|.

    Args:
        top_items: int64 [B, K], -1 where there is no item.
        pair_row: int64 [P], row of the pair's user in top_items.
        pair_item: int64 [P], -1 for an item outside the corpus, which is never a hit.
    """
    k, width = top_items.shape[1], int(max(top_items.max(initial=0), pair_item.max(initial=0))) + 2
    rows = np.arange(len(top_items))[:, None] * width + 1
    found = few_among(pair_row * width + 1 + pair_item, (rows + top_items).ravel())
    ranks: IntArray = np.where((found >= 0) & (pair_item >= 0), found % max(k, 1), k)
    return ranks


def places_by_rank(asked: Asked, k: int, *, pair_rank: IntArray, taken_rank: IntArray, free: IntArray) -> Places:
    """Returns the places by what comes before what.

    Args:
        asked: the pairs.
        k: length of the lists.
        pair_rank: int64 [P], at least 0: the item with the lower rank comes first; ranks are compared within a row only.
        taken_rank: int64, of each item of `asked.taken`.
        free: int64 [P], items before each pair's; any number from k on will do where there are k and as many more as the user
            took.
    """
    passed = count_below(asked.taken_row, taken_rank, asked.pair_row, pair_rank)
    is_out = (asked.pair_item < 0) | is_among(asked.pair_row, asked.pair_item, asked.taken_row, asked.taken.indices)
    fresh = np.where(is_out, k, np.minimum(free - passed, k))
    return Places(np.where(asked.pair_item < 0, k, np.minimum(free, k)), fresh)


def count_below(row: IntArray, value: IntArray, pair_row: IntArray, pair_value: IntArray) -> IntArray:
    """Returns int64 [P]: how many entries of the pair's row have a lower value.

    Args:
        row: int64 [E], in any order.
        value: int64 [E], at least 0.
        pair_row: int64 [P].
        pair_value: int64 [P], at least 0.
    """
    width = int(max(value.max(initial=0), pair_value.max(initial=0))) + 1
    keys = np.sort(row * width + value)
    first = pair_row * width
    return (np.searchsorted(keys, first + pair_value) - np.searchsorted(keys, first)).astype(np.int64)


def is_among(row: IntArray, item: IntArray, other_row: IntArray, other_item: IntArray) -> NDArray[np.bool_]:
    """Returns bool [P], whether the pair (row, item) is one of the others; items at least -1, which is never among them."""
    return find(row, item, *_sorted_by_item(other_row, other_item)) >= 0


def find(row: IntArray, item: IntArray, other_row: IntArray, other_item: IntArray) -> IntArray:
    """Returns int64 [P], the position of each pair (row, item) among others that ascend by row and item, -1 if it is not there."""
    width = int(max(item.max(initial=0), other_item.max(initial=0))) + 1
    keys, wanted = other_row * width + other_item, row * width + item
    if not len(keys):
        return np.full(len(wanted), -1, dtype=np.int64)
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where((keys[place] == wanted) & (item >= 0), place, -1)


def few_among(few: IntArray, many: IntArray) -> IntArray:
    """Returns int64 [P], the first position of each of a few keys among many, -1 if it is not there.

    The many are not sorted: a table of bits, at the place that a key is multiplied to, passes over nearly all of them.

    Args:
        few: int64 [P], at least 0, in any order, repetitions allowed.
        many: int64 [E], at least 0, in any order, repetitions allowed.
    """
    bits = min(max(len(few).bit_length() + 7, 10), 26)
    is_wanted = np.zeros(1 << bits, dtype=bool)
    is_wanted[_scattered(few, bits)] = True
    maybe = np.flatnonzero(is_wanted[_scattered(many, bits)])
    if not len(maybe):
        return np.full(len(few), -1, dtype=np.int64)
    order = maybe[np.argsort(many[maybe], kind="stable")]
    keys = many[order]
    place = np.minimum(np.searchsorted(keys, few), len(keys) - 1)
    return np.where(keys[place] == few, order[place], -1)


def _scattered(keys: IntArray, bits: int) -> NDArray[np.uint64]:
    """Returns numbers below 2^bits, the same for the same key (Knuth, "The Art of Computer Programming" 3, section 6.4)."""
    return (keys.view(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(64 - bits)


def _sorted_by_item(row: IntArray, item: IntArray) -> tuple[IntArray, IntArray]:
    width = int(item.max(initial=0)) + 1
    keys = np.sort(row * width + item)
    return keys // width, keys % width
