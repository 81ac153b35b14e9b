"""Items that the same users took: everybody's items of the window, in either direction.

Numbers of an item or user take four bytes, and that a user took an item takes no more than its place; where they lie, memory
or files mapped into it, is for the caller to say.

Belongs here: the two directions and how one is made of the other. Does not belong here: similarities
(`item_cooccurrence.py`).

Shapes: V users, I items, E distinct (user, item) pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dssm_assets.core.evaluation.interactions import Interactions
from dssm_assets.core.retrieval.exclusions import Index

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

    starts: Index
    items: Numbers
    num_items: int

    def blocks(self) -> Iterator[tuple[Index, Numbers]]:
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

    starts: Index
    users: Numbers
    together: Index


def last_items(window: Interactions, most_items: int = MOST_ITEMS) -> tuple[Index, Numbers]:
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
