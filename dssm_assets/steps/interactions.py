"""Interactions out of stored days of user history, over the users and the items of a scorer: of a range of users, or of
everybody, some users at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core import columns as col
from dssm_assets.core.config.evaluation import Segment, SegmentKind
from dssm_assets.core.errors import ConfigError, Fault
from dssm_assets.steps.training import find_history_days
from dssm_assets.steps.workspace import Workspace, day_before, window_days
from dssm_assets.storage.manifest import Manifest

if TYPE_CHECKING:
    from dssm_assets.core.arrays.ids import IdIndex


BATCH_ROWS: Final = 8192
"""Users of a day that are held while all days are gone through side by side."""
RANGE_EVENTS: Final = 1 << 19
"""Events that are counted together, about."""
_COLUMNS: Final = (col.USER_ID, col.ITEM_IDS, col.EVENT_TIMES_MS)


def window_history(workspace: Workspace, ds: str) -> list[Manifest]:
    """Returns the stored days of user history that lie in the window of a day."""
    first = window_days(ds, workspace.config.window.days)[0]
    return [day for day in find_history_days(workspace, ds) if day.ds >= first]


def interactions(workspace: Workspace, past: Sequence[Manifest], user_ids: pa.Array, items: IdIndex, before: Any = None) -> Any:
    """Returns who of some users took what how often in some stored days of user history.

    Args:
        workspace: holds the days.
        past: the days.
        user_ids: the users, ascending; of the others nothing is held.
        items: the corpus.
        before: interactions of other days, of the same users and items, that are added to.
    """
    from dssm_assets.core.evaluation.interactions import interactions_of_users

    kinds = _Kinds(user_ids.type, items.ids.type)
    days = (_flat(kinds.of(rows_of(workspace, manifest, _COLUMNS, user_ids))) for manifest in past)
    return interactions_of_users(_together(days, kinds), user_ids, items, before)


def taken_by_everybody(workspace: Workspace, past: Sequence[Manifest], user_ids: pa.Array, items: IdIndex) -> Iterator[Any]:
    """Yields the interactions of all users of some stored days, some users at a time, none twice.

    Args:
        workspace: holds the days.
        past: the days.
        user_ids: of the type that users are to have.
        items: the corpus.
    """
    from dssm_assets.core.evaluation.interactions import read_interactions

    for events in _whole_users(workspace, past, _Kinds(user_ids.type, items.ids.type)):
        yield read_interactions(events, user_ids.slice(0, 0), items)


def item_events(workspace: Workspace, past: Sequence[Manifest], items: IdIndex) -> Any:
    """Returns int64 [I], how often each item of a corpus was taken in some stored days."""
    from dssm_assets.core.arrays.ids import cast_ids

    events = np.zeros(len(items.ids) + 1, dtype=np.int64)
    for manifest in past:
        for batch in workspace.tables.batches(manifest, [col.ITEM_IDS]):
            counted = pc.value_counts(pc.list_flatten(batch.column(0)))
            taken = cast_ids(counted.field("values"), items.ids.type, "interactions, column item_id")
            events[items.lookup(taken)] += counted.field("counts").to_numpy()  # what is no item adds to the last place
    return events[:-1]


def user_events(workspace: Workspace, past: Sequence[Manifest], user_ids: pa.Array) -> Any:
    """Returns int64 [U], how many events each of these users has in some stored days."""
    from dssm_assets.core.arrays.ids import IdIndex, cast_ids

    events, index = np.zeros(len(user_ids) + 1, dtype=np.int64), IdIndex(user_ids)
    for manifest in past:
        for batch in workspace.tables.batches(manifest, [col.USER_ID, col.ITEM_IDS]):
            users = cast_ids(batch.column(0), user_ids.type, "interactions, column user_id")
            lengths = pc.fill_null(pc.list_value_length(batch.column(1)), 0).to_numpy()
            events[index.lookup(users)] += lengths  # one row per user; what is no user adds to the last place
    return events[:-1]


def rows_of(workspace: Workspace, manifest: Manifest, columns: Sequence[str] | None, users: pa.Array) -> pa.Table:
    """Returns the rows of a table that are of these users, who are ascending, in the table's order; of others none is held.

    Where the table is sorted by user, row groups before the first and behind the last of them are not read. Ids of another
    kind are left to be complained of: then all is read.
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
class _Kinds:
    """The types that users and items are to have."""

    user: pa.DataType
    item: pa.DataType

    def of(self, rows: pa.Table) -> pa.Table:
        """Returns rows of user history with these types, their columns in one order."""
        from dssm_assets.core.arrays.ids import cast_ids
        from dssm_assets.core.arrays.ragged import combine_chunks

        users = cast_ids(combine_chunks(rows.column(col.USER_ID)), self.user, "interactions, column user_id")
        lists = combine_chunks(rows.column(col.ITEM_IDS))
        items = cast_ids(lists.values, self.item, "interactions, column item_id")
        lists = pa.ListArray.from_arrays(lists.offsets, items)
        return pa.table({col.USER_ID: users, col.ITEM_IDS: lists, col.EVENT_TIMES_MS: rows.column(col.EVENT_TIMES_MS)})

    def nothing(self) -> pa.Table:
        """Returns no events."""
        rows = {col.USER_ID: pa.array([], self.user), col.ITEM_IDS: pa.array([], pa.list_(self.item))}
        return _flat(pa.table(rows | {col.EVENT_TIMES_MS: pa.array([], pa.list_(pa.int64()))}))


def _whole_users(workspace: Workspace, past: Sequence[Manifest], kinds: _Kinds) -> Iterator[pa.Table]:
    """Yields the events of all days, about RANGE_EVENTS at a time, users ascending and never cut.

    Every day is sorted by user, so what all days have up to some user can be taken from each: of a day, a batch is held.
    """
    streams = [_Stream(workspace, manifest, kinds) for manifest in past]

    def users() -> Iterator[pa.Table]:
        nonlocal streams
        while streams := [stream for stream in streams if stream.fill()]:
            last = min(stream.last for stream in streams)
            yield pa.concat_tables([_flat(stream.take(last)) for stream in streams])

    yield from _together(users(), kinds)


def _together(parts: Iterable[pa.Table], kinds: _Kinds) -> Iterator[pa.Table]:
    """Yields events in tables of about RANGE_EVENTS, of whole parts, the last one possibly empty."""
    held, count = [kinds.nothing()], 0
    for part in parts:
        held.append(part)
        count += part.num_rows
        if count >= RANGE_EVENTS:
            yield pa.concat_tables(held)
            held, count = [kinds.nothing()], 0
    yield pa.concat_tables(held)


class _Stream:
    """The rows of a day, taken from the front."""

    def __init__(self, workspace: Workspace, manifest: Manifest, kinds: _Kinds) -> None:
        self._batches = workspace.tables.batches(manifest, _COLUMNS, batch_rows=BATCH_ROWS)
        self._kinds = kinds
        self._rows: pa.Table | None = None

    def fill(self) -> bool:
        """Returns whether there are rows; reads on where none are held."""
        while self._rows is None or not self._rows.num_rows:
            batch = next(self._batches, None)
            if batch is None:
                return False
            self._rows = self._kinds.of(pa.Table.from_batches([batch]))
        return True

    @property
    def last(self) -> Any:
        """Returns the last user of the rows that are held."""
        assert self._rows is not None
        return self._rows.column(col.USER_ID)[-1].as_py()

    def take(self, last: Any) -> pa.Table:
        """Returns the rows of users up to the last one, and holds them no longer."""
        assert self._rows is not None
        users = self._rows.column(col.USER_ID)
        count = pc.sum(pc.less_equal(users, pa.scalar(last, users.type))).as_py()
        taken, self._rows = self._rows.slice(0, count), self._rows.slice(count)
        return taken


def _flat(rows: pa.Table) -> pa.Table:
    """Returns a row per event of rows per user."""
    from dssm_assets.core.evaluation.interactions import LAST_EVENT_TIME_MS

    table = rows.combine_chunks()
    items = table.column(col.ITEM_IDS)
    taken = pc.list_flatten(items)
    return pa.table(
        {
            col.USER_ID: table.column(col.USER_ID).take(pc.list_parent_indices(items)),
            col.ITEM_ID: taken,
            col.COUNT: pa.array(np.ones(len(taken), np.int64)),
            LAST_EVENT_TIME_MS: pc.list_flatten(table.column(col.EVENT_TIMES_MS)),
        }
    )


def read_cuts(workspace: Workspace, ds: str, scorer: Any) -> tuple[Any, list[Manifest]]:
    """Returns the segments of the scorer's users and items, and what was read for them.

    Raises:
        ConfigError: naming every segment by a column that user_table lacks.
    """
    from dssm_assets.core.evaluation.segments import Cuts

    by_kind: dict[SegmentKind, list[Segment]] = {kind: [] for kind in SegmentKind}
    for segment in workspace.config.evaluation.segments:
        by_kind[segment.kind].append(segment)
    users: dict[str, pa.Array] = {}
    built_from: list[Manifest] = []
    readers = {
        SegmentKind.USER_COLUMN: _columns,
        SegmentKind.ACTIVITY: _activity,
        SegmentKind.TENURE: _tenure,
    }
    for kind, read in readers.items():
        if by_kind[kind]:
            found, manifests = read(workspace, ds, scorer, by_kind[kind])
            users |= found
            built_from += manifests
    tier = None
    if by_kind[SegmentKind.ITEM_POPULARITY]:
        popularity, counted = read_popularity(workspace, ds, scorer.item_ids)
        tier = popularity.tier
        built_from.append(counted)
    names = [segment.name for segment in workspace.config.evaluation.segments if segment.name in users]
    return Cuts({name: users[name] for name in names}, tier), built_from


def read_popularity(workspace: Workspace, ds: str, item_ids: pa.Array | None = None) -> tuple[Any, Manifest]:
    """Returns how often each item was taken in the window, over the given items (default: the day's corpus)."""
    from dssm_assets.core.arrays.ragged import combine_chunks
    from dssm_assets.core.evaluation.segments import popularity_of

    counted = workspace.need("negative_items", ds)
    table = workspace.tables.read(counted, [col.ITEM_ID, col.COUNT])
    return popularity_of(combine_chunks(table.column(col.ITEM_ID)) if item_ids is None else item_ids, table), counted


_Found = tuple[dict[str, pa.Array], list[Manifest]]


def _activity(workspace: Workspace, ds: str, scorer: Any, segments: Sequence[Segment]) -> _Found:
    from dssm_assets.core.evaluation.segments import by_activity

    past = window_history(workspace, ds)
    labels = by_activity(user_events(workspace, past, scorer.user_ids), workspace.config.evaluation.segment_edges)
    return {segment.name: labels for segment in segments}, past


def _tenure(workspace: Workspace, ds: str, scorer: Any, segments: Sequence[Segment]) -> _Found:
    from dssm_assets.core.arrays.ragged import combine_chunks
    from dssm_assets.core.evaluation.segments import by_tenure

    eve = workspace.need("user_activity", day_before(ds))
    activity = workspace.tables.read(eve, [col.USER_ID, col.EVENT])
    positive = pc.is_in(activity.column(col.EVENT), value_set=pa.array(workspace.config.events.positive))
    labels = by_tenure(scorer.user_ids, combine_chunks(activity.filter(positive).column(col.USER_ID)))
    return {segment.name: labels for segment in segments}, [eve]


def _columns(workspace: Workspace, ds: str, scorer: Any, segments: Sequence[Segment]) -> _Found:
    from dssm_assets.core.evaluation.segments import by_column

    eve = workspace.need("user_table", day_before(ds))
    known = [column.name for column in eve.columns]
    lacking = [segment for segment in segments if segment.user_column not in known]
    if lacking:
        expected = f"activity, tenure, item_popularity or a column of user_table: {', '.join(known)}"
        where = "configuration, key evaluation.segments, segment"
        raise ConfigError([Fault(f"{where} {one.name}", expected, f"by: {one.by}", "correct the name") for one in lacking])
    table = workspace.tables.read(eve, list(dict.fromkeys([col.USER_ID, *(segment.user_column for segment in segments)])))
    ids = table.column(col.USER_ID)
    return {one.name: by_column(scorer.user_ids, ids, table.column(one.user_column), one) for one in segments}, [eve]
