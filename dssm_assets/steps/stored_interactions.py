"""Reads interactions from the stored days of user history: for some users, or for all users a few at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dssm_assets.core import columns as col
from dssm_assets.core.arrays.ids import IdCounts, IdIndex, cast_ids, sorted_unique
from dssm_assets.core.arrays.ragged import IntArray, combine_chunks
from dssm_assets.core.evaluation.interactions import LAST_EVENT_TIME_MS, Interactions, sum_interactions
from dssm_assets.steps.training import find_history_days
from dssm_assets.steps.workspace import Workspace, day_before, release_memory, start_of_day_ms
from dssm_assets.storage.manifest import Manifest
from dssm_assets.storage.tables import ROW_GROUP_ROWS

BATCH_ROWS: Final = 8192
"""At most so many users of a day are in memory while all days are read side by side."""
OPEN_ROWS: Final = 1 << 18
"""About so many users of all these days together are in memory."""
RANGE_EVENTS: Final = 1 << 19
"""About so many events are summed at once."""
SCORED_DAYS: Final = 7
"""Half-lives are compared on so many last days of the window. If n days are evaluated together, on n times as many."""
MS_PER_HOUR: Final = 3_600_000
_COLUMNS: Final = (col.USER_ID, col.ITEM_IDS, col.EVENT_TIMES_MS)


@dataclass(frozen=True)
class EventDays:
    """The stored days of user history before an evaluation day, ascending: days in the window, and older days.

    Attributes:
        now_ms: begin of the evaluation day, unix milliseconds.
    """

    older: list[Manifest]
    window: list[Manifest]
    now_ms: int

    @property
    def history(self) -> list[Manifest]:
        return [*self.older, *self.window]


def find_event_days(workspace: Workspace, ds: str) -> EventDays:
    config, history = workspace.config, find_history_days(workspace, ds)
    window = day_before(ds, config.window.days)
    return EventDays(
        [day for day in history if day.ds < window],
        [day for day in history if day.ds >= window],
        start_of_day_ms(ds, config.calendar.timezone),
    )


def read_interactions_of_users(
    workspace: Workspace,
    history: Sequence[Manifest],
    user_ids: pa.Array,
    corpus: IdIndex,
    earlier: Interactions | None = None,
) -> Interactions:
    """Returns the interactions of some users on some days of user history.

    Args:
        user_ids: the users, ascending.
        earlier: interactions of the same users and items on other days, which are added.
    """
    days = ([read_rows_of_users(workspace, manifest, _COLUMNS, user_ids)] for manifest in history)
    return sum_interactions(_join_events(days, user_ids.type, corpus.ids.type), user_ids, corpus, earlier)


def read_all_interactions(
    workspace: Workspace, history: Sequence[Manifest], user_ids: pa.Array, corpus: IdIndex
) -> Iterator[Interactions]:
    """Yields the interactions of all users on some days, a few users at a time. Each user comes once."""
    release_memory()  # reading all days side by side takes much
    parts = _read_whole_users(workspace, history, user_ids.type)
    for events in _join_events(parts, user_ids.type, corpus.ids.type):
        yield sum_interactions([events], sorted_unique(combine_chunks(events.column(col.USER_ID))), corpus)
        release_memory()


def count_item_events(workspace: Workspace, history: Sequence[Manifest], corpus: IdIndex) -> IntArray:
    """Counts the positive events of each item of the corpus on some days of user history, int64 [I]."""
    counts, events = IdCounts("interactions, column item_id"), np.zeros(len(corpus) + 1, np.int64)
    for manifest in history:
        for batch in workspace.tables.batches(manifest, [col.ITEM_IDS]):
            counts.update(cast_ids(pc.list_flatten(batch.column(0)), corpus.ids.type, "interactions, column item_id"))
    if counts:
        items, events_of = counts.total()
        events[corpus.lookup(items)] = events_of  # the last place is for items outside the corpus
    return events[:-1]


def count_recent_events(workspace: Workspace, days: EventDays, corpus: IdIndex) -> tuple[NDArray[np.float64], float]:
    """Returns time-decayed counts of each item's positive events in the window, float64 [I], and the chosen half-life in hours.

    An event's weight halves with each half-life that it is older than the newest. Tries each half-life of `evaluation.recent` on the
    window's last days, and keeps the best.

    A half-life's score on a day is the number of that day's events with one of the top k items before it, with the largest k of
    `evaluation.k`. Of equal half-lives the longest is kept. If several days are evaluated together, the top items are as of the
    first. Memory: a count per half-life and item.
    """
    settings = workspace.config.evaluation
    half_lives_ms = np.array(settings.recent, np.float64)[:, None] * MS_PER_HOUR  # [H, 1]
    counts, hits = np.zeros((len(half_lives_ms), len(corpus.ids))), np.zeros(len(half_lives_ms), np.int64)
    num_scored = min(SCORED_DAYS * settings.span_days, len(days.window) - 1)
    k, newest, best = settings.k[-1], None, list[IntArray]()
    for days_left, day in zip(range(len(days.window), 0, -1), days.window, strict=True):
        if days_left <= num_scored and (num_scored - days_left) % settings.span_days == 0:
            best = [np.argsort(-counted, kind="stable")[:k] for counted in counts]
        table = workspace.tables.read(day, [col.ITEM_IDS, col.EVENT_TIMES_MS])
        items, times = (combine_chunks(pc.list_flatten(column)) for column in table.columns)
        rows = corpus.lookup(cast_ids(items, corpus.ids.type, "interactions, column item_id"))
        rows, times_ms = rows[rows >= 0], times.to_numpy()[rows >= 0]
        if not len(rows):
            continue
        if best:
            hits += np.bincount(rows, minlength=len(corpus.ids))[np.stack(best)].sum(axis=1)
        last = int(times_ms.max())
        newest_before, newest = (last, last) if newest is None else (newest, max(newest, last))
        counts *= np.exp2((newest_before - newest) / half_lives_ms)
        for place, half_life_ms in enumerate(half_lives_ms):
            counts[place] += np.bincount(rows, np.exp2((times_ms - newest) / half_life_ms), len(corpus.ids))
    chosen = len(hits) - 1 - int(np.argmax(hits[::-1]))
    return counts[chosen], settings.recent[chosen]


def count_user_events(workspace: Workspace, history: Sequence[Manifest], user_ids: pa.Array) -> IntArray:
    """Counts the positive events of each of these users on some days of user history, int64 [U]."""
    events, places = np.zeros(len(user_ids) + 1, dtype=np.int64), IdIndex(user_ids)
    for manifest in history:
        for batch in workspace.tables.batches(manifest, [col.USER_ID, col.ITEM_IDS]):
            users = cast_ids(batch.column(0), user_ids.type, "interactions, column user_id")
            lengths = pc.fill_null(pc.list_value_length(batch.column(1)), 0).to_numpy()
            events[places.lookup(users)] += lengths  # a user has one row; other users add to the last place
    return events[:-1]


def read_rows_of_users(workspace: Workspace, manifest: Manifest, columns: Sequence[str] | None, users: pa.Array) -> pa.Table:
    """Returns the rows of these users (ascending) in the table's order.

    In a long table, row groups without these users are skipped. If ids are text on one side and numbers on the other, all rows
    are returned; `cast_ids` reports the mismatch later.

    Args:
        columns: `user_id` and any others. None: all.
    """
    if manifest.rows <= ROW_GROUP_ROWS:
        rows = workspace.tables.read(manifest, columns)
        ids = rows.column(col.USER_ID)
        is_same = pa.types.is_integer(ids.type) == pa.types.is_integer(users.type)
        return rows.filter(pc.is_in(ids.cast(users.type), value_set=users)) if is_same else rows
    stored, names = workspace.tables.open(manifest), columns and list(columns)
    kind, user = stored.schema.field(col.USER_ID).type, pc.field(col.USER_ID)
    if pa.types.is_integer(kind) != pa.types.is_integer(users.type):
        return stored.to_table(columns=names)
    if not len(users):
        return stored.head(0, columns=names)
    low, high = (users[place].cast(kind) for place in (0, len(users) - 1))
    return stored.to_table(columns=names, filter=(user >= low) & (user <= high) & user.cast(users.type).isin(users))


def _read_whole_users(workspace: Workspace, history: Sequence[Manifest], user_type: pa.DataType) -> Iterator[list[pa.Table]]:
    """Yields all rows of some users, a table per day, users ascending.

    Each day is sorted by user, so the days are merged with one batch of each in memory. A user comes as soon as no unread
    batch can hold more of that user's rows.
    """
    batch_rows = max(1, min(BATCH_ROWS, OPEN_ROWS // max(len(history), 1)))
    streams = [_DayStream(workspace, manifest, user_type, batch_rows) for manifest in history]
    while streams := [stream for stream in streams if stream.fill()]:
        last = min((stream.last_user for stream in streams if stream.unread), default=None)
        yield [stream.pop_until(last) for stream in streams]


class _DayStream:
    def __init__(self, workspace: Workspace, manifest: Manifest, user_type: pa.DataType, batch_rows: int) -> None:
        self._user_type = user_type
        self._batches = workspace.tables.batches(manifest, _COLUMNS, batch_rows=batch_rows)
        self._rows = pa.table({name: [] for name in _COLUMNS})
        self.unread = manifest.rows  # not in memory yet

    def fill(self) -> bool:
        """Reads the next batch if no row is in memory. Returns whether there are rows."""
        while not self._rows.num_rows:
            batch = next(self._batches, None)
            if batch is None:
                return False
            users = cast_ids(batch.column(col.USER_ID), self._user_type, "interactions, column user_id")
            self._rows = pa.table([users, *(batch.column(name) for name in _COLUMNS[1:])], _COLUMNS)
            self.unread -= batch.num_rows
        return True

    @property
    def last_user(self) -> Any:
        return self._rows.column(col.USER_ID)[-1].as_py()

    def pop_until(self, last: Any) -> pa.Table:
        """Removes and returns the rows of users up to `last`. None: all rows."""
        users = self._rows.column(col.USER_ID)
        count = len(users) if last is None else pc.sum(pc.less_equal(users, pa.scalar(last, users.type))).as_py()
        popped, self._rows = self._rows.slice(0, count), self._rows.slice(count)
        return popped


def _join_events(parts: Iterable[Sequence[pa.Table]], user_type: pa.DataType, item_type: pa.DataType) -> Iterator[pa.Table]:
    """Yields a row per event instead of a row per user, about RANGE_EVENTS at a time. The last table may be empty."""
    kinds = {col.USER_ID: user_type, col.ITEM_ID: item_type, col.COUNT: pa.int64(), LAST_EVENT_TIME_MS: pa.int64()}
    nothing = pa.schema(list(kinds.items())).empty_table()
    pending, count = [nothing], 0
    for part in parts:
        for rows in part:
            lists = combine_chunks(rows.column(col.ITEM_IDS))
            owner, items = combine_chunks(rows.column(col.USER_ID)).take(pc.list_parent_indices(lists)), pc.list_flatten(lists)
            columns = (
                cast_ids(owner, user_type, "interactions, column user_id"),
                cast_ids(items, item_type, "interactions, column item_id"),
                pa.repeat(pa.scalar(1, pa.int64()), len(items)),
                combine_chunks(pc.list_flatten(rows.column(col.EVENT_TIMES_MS))),
            )
            pending.append(pa.table(dict(zip(kinds, columns, strict=True))))
            count += len(items)
        if count >= RANGE_EVENTS:
            yield pa.concat_tables(pending)
            pending, count = [nothing], 0
    yield pa.concat_tables(pending)
