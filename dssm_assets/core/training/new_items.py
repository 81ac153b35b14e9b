"""Which samples are of an item that is new to its user: one that is nowhere in the history that the sample may see.

Letters: B samples, U users.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dssm_assets.core.arrays.ragged import IntArray, Mask, ranges

MAX_EVENTS: Final = 4_000_000
"""Events of histories in memory at once; a single longer history is alone."""

ItemsAt = Callable[[IntArray], npt.NDArray[np.int32]]
"""Returns the items of events by position."""


def new_items(starts: IntArray, ends: IntArray, items: npt.NDArray[Any], items_at: ItemsAt) -> Mask:
    """Returns bool [B]: whether no event start .. end - 1 of a sample's history is of the sample's item.

    By hand: the events at positions 0 to 3 are of items 7, 8, 7, 9. Samples with the history 0 .. 1 and the items 7, 8, 9 are
    known, known and new; with the history 0 .. 0 they are known, new and new.

    Args:
        starts: first event of each sample's user [B].
        ends: where each sample's history ends [B]; the start if it has none.
        items: of each sample [B].
    """
    is_new = np.ones(len(items), dtype=bool)
    with_history = np.flatnonzero(ends > starts)
    users, user = np.unique(starts[with_history], return_inverse=True)  # a start belongs to one user
    user_ends = np.zeros(len(users), np.int64)
    np.maximum.at(user_ends, user, ends[with_history])
    order = np.argsort(user, kind="stable")
    for first, stop in _user_blocks(user_ends - users):
        rows = with_history[order[np.searchsorted(user, first, sorter=order) : np.searchsorted(user, stop, sorter=order)]]
        lengths = user_ends[first:stop] - users[first:stop]
        positions = ranges(users[first:stop], lengths)
        of_events = items_at(positions).astype(np.int64)
        width = 2 + max(int(of_events.max(initial=0)), int(items[rows].max(initial=0)))
        owner = np.repeat(np.arange(stop - first), lengths)
        pairs, earliest = np.unique(owner * width + of_events + 1, return_index=True)
        wanted = np.searchsorted(users[first:stop], starts[rows]) * width + items[rows] + 1
        found = np.minimum(np.searchsorted(pairs, wanted), len(pairs) - 1)
        is_new[rows] = (pairs[found] != wanted) | (positions[earliest[found]] >= ends[rows])
    return is_new


def _user_blocks(lengths: IntArray) -> Iterator[tuple[int, int]]:
    """Yields ranges (first, stop) of users with about MAX_EVENTS events together."""
    block = np.cumsum(lengths) // MAX_EVENTS
    edges = [0, *(1 + np.flatnonzero(np.diff(block))).tolist(), len(lengths)]
    yield from ((first, stop) for first, stop in itertools.pairwise(edges) if stop > first)
