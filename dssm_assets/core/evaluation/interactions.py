"""Interactions as compressed sparse rows: the number of each user's positive events on each item, and the time of the last.

Shapes: U users, I items, E distinct (user, item) pairs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dssm_assets.core.arrays.ids import IdIndex, find_positions
from dssm_assets.core.arrays.ragged import IntArray, ItemSets, offsets_of, row_of_value
from dssm_assets.core.columns import COUNT, ITEM_ID, USER_ID

LAST_EVENT_TIME_MS: Final = "last_event_time_ms"
MERGE_PAIRS: Final = 1 << 20
"""Pairs are merged early only if at least this many are unmerged."""


@dataclass(frozen=True)
class Interactions:
    """Positive events per user and item of the corpus, sorted by (user_index, item_index).

    Attributes:
        indptr: int64 [U + 1].
        item_index: int64 [E].
        count: int64 [E], positive events of the pair.
        last_time_ms: int64 [E], time of the last event.
        num_items: I.
    """

    indptr: IntArray
    item_index: IntArray
    count: IntArray
    last_time_ms: IntArray
    num_items: int

    @property
    def user_index(self) -> IntArray:
        """Returns the user of each pair, int64 [E]."""
        return row_of_value(self.indptr)

    @property
    def exclusions(self) -> ItemSets:
        return ItemSets(self.indptr, self.item_index)


def sum_interactions(
    tables: Iterable[pa.Table], user_ids: pa.Array, corpus: IdIndex, earlier: Interactions | None = None
) -> Interactions:
    """Sums the interactions in tables, one in memory at a time.

    Args:
        tables: columns user_id and item_id in the types of `user_ids` and `corpus`, count int64, last_event_time_ms int64. If a pair
            has several rows, counts are added and the latest time is kept.
        user_ids: distinct; their order numbers the users 0 .. U - 1. Must include all users of the tables.
        corpus: its order defines item_index.
        earlier: further interactions of these users over this corpus.
    """
    num_items, merged_pairs = len(corpus), 0
    parts = [_Pairs(*(np.zeros(0, np.int64) for _ in _Pairs._fields))]
    if earlier is not None:
        parts.append(_Pairs(earlier.user_index * num_items + earlier.item_index, earlier.count, earlier.last_time_ms))
    for table in tables:
        owner, items = find_positions(table.column(USER_ID), user_ids), corpus.lookup(table.column(ITEM_ID))
        count, time = (table.column(name).to_numpy() for name in (COUNT, LAST_EVENT_TIME_MS))
        parts.append(_known_pairs(owner, items, count, time, num_items))
        # Merging only when as many pairs are unmerged as merged keeps the total work linear.
        if sum(len(part.keys) for part in parts) - merged_pairs > max(merged_pairs, MERGE_PAIRS):
            parts = [_merge_pairs(parts)]
            merged_pairs = len(parts[0].keys)
    return _build_interactions(parts, len(user_ids), num_items)


def interactions_of_events(
    owner: IntArray, item_index: NDArray[np.integer[Any]], time_ms: IntArray, *, num_users: int, num_items: int
) -> Interactions:
    """Sums up single events to the interactions of (user, item) pairs.

    Args:
        owner: int64 [N], the user of each event, 0 .. num_users - 1.
        item_index: [N], -1 outside the corpus.
        time_ms: int64 [N].
    """
    events = _known_pairs(owner, item_index, np.ones(len(owner), np.int64), time_ms, num_items)
    return _build_interactions([events], num_users, num_items)


class _Pairs(NamedTuple):
    keys: IntArray
    """User times I plus item."""
    counts: IntArray
    times_ms: IntArray


def _known_pairs(owner: IntArray, items: Any, count: IntArray, time_ms: IntArray, num_items: int) -> _Pairs:
    is_known = items >= 0
    return _Pairs(owner[is_known] * num_items + items[is_known], count[is_known], time_ms[is_known])


def _merge_pairs(parts: Sequence[_Pairs]) -> _Pairs:
    keys, count, time = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(keys)
    keys = keys[order]
    starts = np.flatnonzero(np.diff(keys, prepend=-1))
    return _Pairs(keys[starts], np.add.reduceat(count[order], starts), np.maximum.reduceat(time[order], starts))


def _build_interactions(parts: Sequence[_Pairs], num_users: int, num_items: int) -> Interactions:
    keys, count, latest = _merge_pairs(parts)
    starts = offsets_of(np.bincount(keys // num_items, minlength=num_users))
    return Interactions(starts, keys % num_items, count, latest, num_items)
