"""Interactions: who had how many positive events on which item and when last, as compressed sparse rows.

Shapes: U evaluated users, V >= U all users, I items, E distinct (user, item) pairs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dssm_assets.core.arrays.ids import IdIndex, cast_ids, find_positions, sorted_unique
from dssm_assets.core.arrays.ragged import Exclusions, IntArray, combine_chunks, offsets_of, row_of_value
from dssm_assets.core.columns import COUNT, ITEM_ID, USER_ID

LAST_EVENT_TIME_MS: Final = "last_event_time_ms"
Corpus: TypeAlias = pa.Array | pa.ChunkedArray | IdIndex
MERGE_PAIRS: Final = 1 << 20
"""Fewer unmerged pairs than this are not merged before the end."""


@dataclass(frozen=True)
class Interactions:
    """Positive events per user and item, rows sorted by (user_index, item_index).

    Attributes:
        indptr: int64 [V + 1]; the first U users are the evaluated ones, in their order.
        item_index: int64 [E].
        count: int64 [E], positive events of the pair.
        last_time_ms: int64 [E], time of the last of them.
        num_items: I.
        dropped_events: positive events on items outside the corpus; they are not in the rows.
        user_events: int64 [V], positive events of each user, those on items outside the corpus included.
    """

    indptr: IntArray
    item_index: IntArray
    count: IntArray
    last_time_ms: IntArray
    num_items: int
    dropped_events: int
    user_events: IntArray

    @property
    def user_index(self) -> IntArray:
        """Returns int64 [E], the user of each pair."""
        return row_of_value(self.indptr)

    def exclusions(self, num_users: int) -> Exclusions:
        """Returns the items of each of the first num_users users."""
        indptr = self.indptr[: num_users + 1]
        return Exclusions(indptr, self.item_index[: indptr[-1]])


def read_interactions(table: pa.Table, user_ids: pa.Array, item_ids: Corpus) -> Interactions:
    """Returns the interactions of one table; its users who are not among user_ids follow them, ascending.

    Args:
        user_ids: the evaluated users, who become users 0 .. U - 1 whether they occur or not.
        item_ids: the corpus, distinct; its order defines item_index.

    Raises:
        InputError: if ids are of another kind than the evaluated users or the corpus.
    """
    present = pc.unique(_users(table, user_ids.type))
    others = sorted_unique(present.filter(pc.invert(pc.is_in(present, value_set=user_ids))))
    return sum_interactions([table], pa.concat_arrays([user_ids, others]), item_ids)


def sum_interactions(
    tables: Iterable[pa.Table], user_ids: pa.Array, item_ids: Corpus, earlier: Interactions | None = None
) -> Interactions:
    """Returns the interactions of tables of which one is in memory at a time; every user is among user_ids.

    Args:
        tables: user_id, item_id, count int64, last_event_time_ms int64. A pair may occur in several rows: counts are added,
            the latest time is kept.
        user_ids: the users, distinct.
        item_ids: the corpus, distinct; its order defines item_index. Give several calls the same `IdIndex`.
        earlier: interactions of these users over this corpus that are added.

    Raises:
        InputError: if ids are of another kind than the users or the corpus.
    """
    items_of = item_ids if isinstance(item_ids, IdIndex) else IdIndex(item_ids)
    corpus = items_of.ids
    width, events, dropped = max(len(corpus), 1), np.zeros(len(user_ids), dtype=np.int64), 0
    sums = _PairSums()
    if earlier is not None:
        events, dropped = earlier.user_events.copy(), earlier.dropped_events
        sums.add_events(earlier.user_index * width + earlier.item_index, earlier.count, earlier.last_time_ms)
    for table in tables:
        owner = find_positions(_users(table, user_ids.type), user_ids)
        items = items_of.lookup(cast_ids(combine_chunks(table.column(ITEM_ID)), corpus.type, "interactions, column item_id"))
        count, time = (
            combine_chunks(table.column(name)).to_numpy(zero_copy_only=False) for name in (COUNT, LAST_EVENT_TIME_MS)
        )
        np.add.at(events, owner, count)
        known = items >= 0
        dropped += int(count[~known].sum())
        sums.add_events(owner[known] * width + items[known], count[known].astype(np.int64), time[known].astype(np.int64))
    return sums.interactions(len(corpus), dropped, events)


def interactions_of_events(
    owner: IntArray, item_index: NDArray[np.integer[Any]], time_ms: IntArray, *, num_users: int, num_items: int
) -> Interactions:
    """Returns the interactions of single events.

    Args:
        owner: int64 [N], the user of each event, 0 .. num_users - 1.
        item_index: [N], -1 outside the corpus.
        time_ms: int64 [N].
    """
    is_known = item_index >= 0
    sums = _PairSums()
    pairs = owner[is_known] * max(num_items, 1) + item_index[is_known]
    sums.add_events(pairs, np.ones(len(pairs), np.int64), time_ms[is_known])
    return sums.interactions(num_items, len(owner) - len(pairs), np.bincount(owner, minlength=num_users))


class _PairSums:
    """Counts and latest times by pair, merged whenever as many events are unmerged as merged."""

    def __init__(self) -> None:
        self._parts: list[tuple[IntArray, IntArray, IntArray]] = []
        self._merged_pairs = 0

    def add_events(self, pairs: IntArray, count: IntArray, time: IntArray) -> None:
        """Adds events: their pairs in any order, counts and times."""
        self._parts.append((pairs, count, time))
        if sum(len(part[0]) for part in self._parts) - self._merged_pairs > max(self._merged_pairs, MERGE_PAIRS):
            self._parts = [self.merge()]
            self._merged_pairs = len(self._parts[0][0])

    def interactions(self, num_items: int, dropped_events: int, user_events: IntArray) -> Interactions:
        """Returns all pairs, which are user times max(num_items, 1) plus item, as interactions."""
        pairs, count, latest = self.merge()
        width = max(num_items, 1)
        starts = offsets_of(np.bincount(pairs // width, minlength=len(user_events)))
        return Interactions(starts, pairs % width, count, latest, num_items, dropped_events, user_events)

    def merge(self) -> tuple[IntArray, IntArray, IntArray]:
        """Returns the distinct pairs ascending, the sum of their counts, the latest of their times."""
        nothing = np.zeros(0, dtype=np.int64)
        parts = self._parts or [(nothing, nothing, nothing)]
        pairs, count, time = (np.concatenate(column) for column in zip(*parts, strict=True))
        order = np.argsort(pairs)
        pairs = pairs[order]
        starts = np.flatnonzero(np.diff(pairs, prepend=-1))
        if not len(starts):
            return nothing, nothing, nothing
        return pairs[starts], np.add.reduceat(count[order], starts), np.maximum.reduceat(time[order], starts)


def _users(table: pa.Table, kind: pa.DataType) -> pa.Array:
    return cast_ids(combine_chunks(table.column(USER_ID)), kind, "interactions, column user_id")
