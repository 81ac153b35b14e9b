"""Reads interactions from the stored days of user history: of some users, or of all users, a few at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core import columns as col
from dssm_assets.core.arrays.ids import IdIndex, cast_ids
from dssm_assets.core.arrays.ragged import IntArray, combine_chunks
from dssm_assets.core.evaluation.interactions import LAST_EVENT_TIME_MS, Interactions, read_interactions, sum_interactions
from dssm_assets.steps.training import find_history_days
from dssm_assets.steps.workspace import Workspace, day_before, release_memory
from dssm_assets.storage.manifest import Manifest

BATCH_ROWS: Final = 8192
"""Users of a day that are in memory while all days are read side by side, at most."""
OPEN_ROWS: Final = 1 << 18
"""Users of all these days together, about."""
RANGE_EVENTS: Final = 1 << 19
"""Events that are summed at once, about."""
_COLUMNS: Final = (col.USER_ID, col.ITEM_IDS, col.EVENT_TIMES_MS)


@dataclass(frozen=True)
class EventDays:
    """The stored days of user history before a day, ascending.

    Attributes:
        history: all days.
        window: those of the window.
        recent: the last `evaluation.recent_days`.
    """

    history: list[Manifest]
    window: list[Manifest]
    recent: list[Manifest]

    @property
    def older(self) -> list[Manifest]:
        """Returns the days before the window."""
        return self.history[: len(self.history) - len(self.window)]


def find_event_days(workspace: Workspace, ds: str) -> EventDays:
    """Returns the stored days of user history before a day."""
    config, history = workspace.config, find_history_days(workspace, ds)
    window, recent = (
        [day for day in history if day.ds >= day_before(ds, days)]
        for days in (config.window.days, config.evaluation.recent_days)
    )
    return EventDays(history, window, recent)


def read_interactions_of_users(
    workspace: Workspace,
    history: Sequence[Manifest],
    user_ids: pa.Array,
    corpus: IdIndex,
    earlier: Interactions | None = None,
) -> Interactions:
    """Returns the interactions of some users in some days of user history.

    Args:
        user_ids: the users, ascending; rows of others are not read.
        earlier: interactions of other days, of the same users and items, that are added.
    """
    kinds = _IdTypes(user_ids.type, corpus.ids.type)
    days = (_flatten(kinds.cast(read_rows_of_users(workspace, manifest, _COLUMNS, user_ids))) for manifest in history)
    return sum_interactions(_concat_small(days, kinds), user_ids, corpus, earlier)


def read_all_interactions(
    workspace: Workspace, history: Sequence[Manifest], user_ids: pa.Array, corpus: IdIndex
) -> Iterator[Interactions]:
    """Yields the interactions of all users of some days of user history, a few users at a time, each user once."""
    release_memory()  # reading all days side by side takes much
    for events in _read_whole_users(workspace, history, _IdTypes(user_ids.type, corpus.ids.type)):
        yield read_interactions(events, user_ids.slice(0, 0), corpus)
        release_memory()


def count_item_events(workspace: Workspace, history: Sequence[Manifest], corpus: IdIndex) -> IntArray:
    """Returns int64 [I], the positive events of each item of the corpus in some days of user history."""
    events = np.zeros(len(corpus.ids) + 1, dtype=np.int64)
    for items in _read_items(workspace, history, corpus.ids.type):
        counts = pc.value_counts(items)
        # Items outside the corpus add to the last place.
        events[corpus.lookup(counts.field("values"))] += counts.field("counts").to_numpy()
    return events[:-1]


def _read_items(workspace: Workspace, history: Sequence[Manifest], kind: pa.DataType) -> Iterator[pa.Array]:
    """Yields the item of every event of some days, about RANGE_EVENTS at a time: a look-up reads the whole corpus."""
    parts: list[pa.Array] = []
    for manifest in history:
        for batch in workspace.tables.batches(manifest, [col.ITEM_IDS]):
            parts.append(cast_ids(pc.list_flatten(batch.column(0)), kind, "interactions, column item_id"))
            if sum(map(len, parts)) >= RANGE_EVENTS:
                yield pa.concat_arrays(parts)
                parts = []
    if parts:
        yield pa.concat_arrays(parts)


def count_user_events(workspace: Workspace, history: Sequence[Manifest], user_ids: pa.Array) -> IntArray:
    """Returns int64 [U], the positive events of each of these users in some days of user history."""
    events, places = np.zeros(len(user_ids) + 1, dtype=np.int64), IdIndex(user_ids)
    for manifest in history:
        for batch in workspace.tables.batches(manifest, [col.USER_ID, col.ITEM_IDS]):
            users = cast_ids(batch.column(0), user_ids.type, "interactions, column user_id")
            lengths = pc.fill_null(pc.list_value_length(batch.column(1)), 0).to_numpy()
            events[places.lookup(users)] += lengths  # a user has one row; other users add to the last place
    return events[:-1]


def read_rows_of_users(workspace: Workspace, manifest: Manifest, columns: Sequence[str] | None, users: pa.Array) -> pa.Table:
    """Returns the rows of these users, who are ascending, in the table's order.

    Where the table is sorted by user, row groups before the first and after the last of them are not read. If ids are text on
    one side and numbers on the other, all rows are returned: `cast_ids` reports the mismatch.
    """
    stored = workspace.tables.open(manifest)
    kind = stored.schema.field(col.USER_ID).type
    names = None if columns is None else list(columns)
    if pa.types.is_integer(kind) != pa.types.is_integer(users.type):
        return stored.to_table(columns=names)
    if not len(users):
        return stored.head(0, columns=names)
    user, (low, high) = pc.field(col.USER_ID), (users[place].cast(kind) for place in (0, len(users) - 1))
    return stored.to_table(columns=names, filter=(user >= low) & (user <= high) & user.cast(users.type).isin(users))


@dataclass(frozen=True)
class _IdTypes:
    """The types to which ids of users and items are cast."""

    user: pa.DataType
    item: pa.DataType

    def cast(self, rows: pa.Table) -> pa.Table:
        """Returns rows of user history with these types, their columns in one order."""
        users = cast_ids(combine_chunks(rows.column(col.USER_ID)), self.user, "interactions, column user_id")
        lists = combine_chunks(rows.column(col.ITEM_IDS))
        items = cast_ids(lists.values, self.item, "interactions, column item_id")
        lists = pa.ListArray.from_arrays(lists.offsets, items)
        return pa.table({col.USER_ID: users, col.ITEM_IDS: lists, col.EVENT_TIMES_MS: rows.column(col.EVENT_TIMES_MS)})

    def empty_events(self) -> pa.Table:
        """Returns a table of events without rows."""
        rows = {col.USER_ID: pa.array([], self.user), col.ITEM_IDS: pa.array([], pa.list_(self.item))}
        return _flatten(pa.table(rows | {col.EVENT_TIMES_MS: pa.array([], pa.list_(pa.int64()))}))


def _read_whole_users(workspace: Workspace, history: Sequence[Manifest], kinds: _IdTypes) -> Iterator[pa.Table]:
    """Yields the events of all days, about RANGE_EVENTS at a time, users ascending, all events of a user in one table.

    Every day is sorted by user, so the days are merged: of each, a batch is in memory. Users are whole up to the first last
    user of the batches after which their day goes on.
    """
    batch_rows = max(1, min(BATCH_ROWS, OPEN_ROWS // max(len(history), 1)))
    streams = [_DayStream(workspace, manifest, kinds, batch_rows) for manifest in history]

    def merge_days() -> Iterator[pa.Table]:
        nonlocal streams
        while streams := [stream for stream in streams if stream.fill()]:
            last = min((stream.last_user for stream in streams if stream.has_more), default=None)
            yield pa.concat_tables([_flatten(stream.pop_until(last)) for stream in streams])

    yield from _concat_small(merge_days(), kinds)


def _concat_small(parts: Iterable[pa.Table], kinds: _IdTypes) -> Iterator[pa.Table]:
    """Yields whole parts joined to tables of about RANGE_EVENTS events; the last one may be empty."""
    pending, count = [kinds.empty_events()], 0
    for part in parts:
        pending.append(part)
        count += part.num_rows
        if count >= RANGE_EVENTS:
            yield pa.concat_tables(pending)
            pending, count = [kinds.empty_events()], 0
    yield pa.concat_tables(pending)


class _DayStream:
    """The rows of a day, read from the front."""

    def __init__(self, workspace: Workspace, manifest: Manifest, kinds: _IdTypes, batch_rows: int) -> None:
        self._batches = workspace.tables.batches(manifest, _COLUMNS, batch_rows=batch_rows)
        self._kinds = kinds
        self._rows: pa.Table | None = None
        self._unread = manifest.rows

    def fill(self) -> bool:
        """Returns whether rows are left; reads the next batch if none is in memory."""
        while self._rows is None or not self._rows.num_rows:
            batch = next(self._batches, None)
            if batch is None:
                return False
            self._rows = self._kinds.cast(pa.Table.from_batches([batch]))
            self._unread -= batch.num_rows
        return True

    @property
    def has_more(self) -> bool:
        """Returns whether the day has rows that are not in memory yet."""
        return self._unread > 0

    @property
    def last_user(self) -> Any:
        """Returns the last user of the rows in memory."""
        assert self._rows is not None
        return self._rows.column(col.USER_ID)[-1].as_py()

    def pop_until(self, last: Any) -> pa.Table:
        """Returns the rows of users up to the last one, or all rows if that is None, and drops them."""
        assert self._rows is not None
        if last is None:
            popped, self._rows = self._rows, None
            return popped
        users = self._rows.column(col.USER_ID)
        count = pc.sum(pc.less_equal(users, pa.scalar(last, users.type))).as_py()
        popped, self._rows = self._rows.slice(0, count), self._rows.slice(count)
        return popped


def _flatten(rows: pa.Table) -> pa.Table:
    """Returns one row per event, from one row per user."""
    table = rows.combine_chunks()
    lists = table.column(col.ITEM_IDS)
    items = pc.list_flatten(lists)
    return pa.table(
        {
            col.USER_ID: table.column(col.USER_ID).take(pc.list_parent_indices(lists)),
            col.ITEM_ID: items,
            col.COUNT: pa.array(np.ones(len(items), np.int64)),
            LAST_EVENT_TIME_MS: pc.list_flatten(table.column(col.EVENT_TIMES_MS)),
        }
    )
