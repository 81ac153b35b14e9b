"""Every user's positives in one array by time, and the place in it up to which a sample may look.

Belongs here: the compressed sparse rows (CSR) of histories and the search in them. Does not belong here: making them of
the days (`history_build.py`) and the cut to the last items of a history (the batcher).

Letters: U users, H history rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core import columns as col
from dssm_assets.core.arrays.ids import IdIndex, comparable_ids, refuse_type_change
from dssm_assets.core.arrays.ragged import combine_chunks, list_lengths
from dssm_assets.core.errors import Fault, SchemaError, WindowIncompleteError
from dssm_assets.core.samples.embedding_index import Bucketize, bucketize_checked
from dssm_assets.core.samples.sample_tables import history_schema, require_columns, users_schema


@dataclass(frozen=True, eq=False)
class HistoryCsr:
    """All users' positives, sorted by (user, event_time_ms, item_id); user u owns rows starts[u] .. ends[u]-1.

    Attributes:
        users: the users by user_index, in ascending order of their id.
        starts: [U] int64, first row of each user.
        ends: [U] int64, row after each user's last.
        item_index: [H] int32, row in the corpus, -1 for an item outside it.
        event_time_ms: [H] int64.
        features: sequence sub-feature -> [H] int32 embedding indices.
    """

    users: IdIndex
    starts: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]
    item_index: npt.NDArray[np.int32]
    event_time_ms: npt.NDArray[np.int64]
    features: Mapping[str, npt.NDArray[np.int32]]

    def to_tables(self) -> tuple[pa.Table, pa.Table]:
        """Returns (history.arrow, users.arrow)."""
        history = [
            pa.array(self.item_index),
            pa.array(self.event_time_ms),
            *(pa.array(column) for column in self.features.values()),
        ]
        users = [self.users.ids, pa.array(self.starts), pa.array(self.ends)]
        return (
            pa.Table.from_arrays(history, schema=history_schema(list(self.features))),
            pa.Table.from_arrays(users, schema=users_schema(self.users.ids.type)),
        )


def history_end(
    history: HistoryCsr, user_index: npt.NDArray[np.int32], cutoff_ms: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Returns, per pair, the first row in the user's part of the history whose time is not before the cutoff.

    So rows starts[u] .. result-1 are exactly the user's positives strictly before the cutoff; others with the same
    timestamp (the rest of a basket) are not among them. A user_index of -1 (no history) gives 0.

    A binary search of all pairs at once: as many rounds as the longest history has bits, comparing times only, so
    it is exact for every int64.
    """
    is_known = user_index >= 0
    # A pair without a user searches the empty stretch 0..0, also when there is no user at all.
    low = np.zeros(len(user_index), dtype=np.int64)
    high = np.zeros(len(user_index), dtype=np.int64)
    low[is_known] = history.starts[user_index[is_known]]
    high[is_known] = history.ends[user_index[is_known]]
    while (open_pairs := np.flatnonzero(low < high)).size:
        middle = low[open_pairs] + (high[open_pairs] - low[open_pairs]) // 2
        is_before = history.event_time_ms[middle] < cutoff_ms[open_pairs]
        low[open_pairs[is_before]] = middle[is_before] + 1
        high[open_pairs[~is_before]] = middle[~is_before]
    return low


BLOCK_ROWS: Final = 1 << 20
"""Events whose order is checked at once, about: a user is never cut."""

Days: TypeAlias = Callable[[Sequence[str]], Iterable[pa.Table]]
"""Returns user_history_fg, one table per day, each time from the first; the named columns suffice, those there are."""
Allocate: TypeAlias = Callable[[int, Any], npt.NDArray[Any]]
"""Returns room for so many numbers of a kind."""

_TABLE = "table user_history_fg"
_KEYS: Final = (col.USER_ID, col.ITEM_IDS)


def history_from_tables(
    days: Iterable[pa.Table], item_index: IdIndex, bucketize: Bucketize, *, features: Sequence[str] = ()
) -> HistoryCsr:
    """Returns the histories of all users in days that are in memory; see `build_history`."""
    held = list(days)
    return build_history(lambda _: held, item_index, bucketize, features=features)


def build_history(
    days: Days,
    item_index: IdIndex,
    bucketize: Bucketize,
    *,
    features: Sequence[str] = (),
    allocate: Allocate = np.empty,
) -> HistoryCsr:
    """Returns the histories of all users in the given days.

    Args:
        days: user_history_fg, in any order of days; one table is held at a time. A table without rows is fine.
        item_index: the corpus, by row.
        bucketize: called per day and sub-feature with the flat int64 values.
        features: the sequence sub-features to keep, named `seq__feat` as their columns.
        allocate: makes the arrays of H rows.

    Raises:
        WindowIncompleteError: there is no table at all.
        SchemaError: a column is missing, has the wrong type, its lists differ in length from item_ids, or an id or
            time is null.
    """
    columns = [*_KEYS, col.EVENT_TIMES_MS, *features]
    users, distinct_items = _distinct(days, columns)
    lengths = _counted(days, users)
    ends = np.cumsum(lengths)
    starts = ends - lengths
    count = int(ends[-1]) if len(ends) else 0
    # An item's rank first, its row in the corpus once the order is certain.
    ranks, times = allocate(count, np.int32), allocate(count, np.int64)
    placed = {name: allocate(count, np.int32) for name in features}
    free = starts.copy()
    for table in days(columns):
        day = _read_day(table, bucketize, features)
        places = _places(np.repeat(users.lookup(day.user_ids), day.lengths), free)
        ranks[places], times[places] = distinct_items.lookup(day.item_ids), day.event_time_ms
        for name, values in day.features.items():
            placed[name][places] = values
    rows = item_index.lookup(distinct_items.ids, where=f"{_TABLE}, column {col.ITEM_IDS}")
    for first, end in _blocks(ends):
        _put_in_order([times, ranks, *placed.values()], ends, first, end)
        ranks[first:end] = rows[ranks[first:end]]
    return HistoryCsr(users=users, starts=starts, ends=ends, item_index=ranks, event_time_ms=times, features=placed)


def _distinct(days: Days, columns: Sequence[str]) -> tuple[IdIndex, IdIndex]:
    """Returns the users and the items, in ascending order."""
    users, items = _Distinct(col.USER_ID), _Distinct(col.ITEM_IDS)
    for table in days(columns):
        require_columns(_TABLE, table.column_names, columns)
        _refuse_bad_lists({name: table.column(name) for name in columns if name != col.USER_ID})
        users.take(table.column(col.USER_ID))
        items.take(combine_chunks(pc.list_flatten(table.column(col.ITEM_IDS))))
    if users.ids is None:
        raise WindowIncompleteError(Fault(_TABLE, "at least one day", "none", "materialize user_history_fg for the window"))
    return users.index(), items.index()


def _counted(days: Days, users: IdIndex) -> npt.NDArray[np.int64]:
    """Returns how many events each user has [U]."""
    lengths = np.zeros(len(users), np.int64)
    for table in days(_KEYS):
        np.add.at(lengths, users.lookup(table.column(col.USER_ID)), list_lengths(table.column(col.ITEM_IDS)))
    return lengths


class _Distinct:
    """The distinct ids of a column over days."""

    def __init__(self, column: str) -> None:
        self._where = f"{_TABLE}, column {column}"
        self.ids: pa.Array | None = None

    def take(self, column: pa.Array | pa.ChunkedArray) -> None:
        found = pc.unique(comparable_ids(column, self._where))
        if self.ids is not None:
            refuse_type_change(self._where, self.ids.type, found.type)
            found = pc.unique(pa.concat_arrays([self.ids, found]))
        self.ids = found

    def index(self) -> IdIndex:
        """Returns them in ascending order, so that an id's row is its rank."""
        assert self.ids is not None
        return IdIndex(self.ids.take(pc.sort_indices(self.ids)), where=self._where)


def _places(user_index: npt.NDArray[np.int32], free: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Returns where each event of a day goes: the next free rows of its user, in the day's order; `free` moves on."""
    order = np.argsort(user_index, kind="stable")
    active, counts = np.unique(user_index, return_counts=True)
    firsts = np.cumsum(counts) - counts
    places = np.empty(len(user_index), np.int64)
    places[order] = np.arange(len(user_index)) + np.repeat(free[active] - firsts, counts)
    free[active] += counts
    return places


def _blocks(ends: npt.NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Yields consecutive rows (first, end) of whole users, BLOCK_ROWS of them or one user's."""
    first, count = 0, int(ends[-1]) if len(ends) else 0
    while first < count:
        last = int(np.searchsorted(ends, first + BLOCK_ROWS, side="right")) - 1
        end = int(ends[last]) if last >= 0 and ends[last] > first else int(ends[np.searchsorted(ends, first, side="right")])
        yield first, end
        first = end


def _put_in_order(columns: list[npt.NDArray[Any]], ends: npt.NDArray[np.int64], first: int, end: int) -> None:
    """Sorts the rows first .. end - 1 of columns by user, time and item, in place; times and ranks are the first two.

    Days that came by time leave nothing to do but in baskets: of one user and time, many items.
    """
    user = np.searchsorted(ends, np.arange(first, end), side="right")
    time, rank = columns[0][first:end], columns[1][first:end]
    is_later = (time[1:] < time[:-1]) | ((time[1:] == time[:-1]) & (rank[1:] < rank[:-1]))
    if not (is_later & (user[1:] == user[:-1])).any():
        return
    order = np.lexsort((rank, time, user))
    for column in columns:
        column[first:end] = column[first:end][order]


@dataclass(frozen=True)
class _Day:
    """The rows of one day, flat: one entry per user, and one per item of all users."""

    user_ids: pa.ChunkedArray
    lengths: npt.NDArray[np.int64]
    item_ids: pa.Array
    event_time_ms: npt.NDArray[np.int64]
    features: dict[str, npt.NDArray[np.int32]]


def _read_day(table: pa.Table, bucketize: Bucketize, features: Sequence[str]) -> _Day:
    lists = {name: table.column(name) for name in (col.ITEM_IDS, col.EVENT_TIMES_MS, *features)}
    lengths = list_lengths(lists[col.ITEM_IDS])
    flat = {name: combine_chunks(pc.list_flatten(column)) for name, column in lists.items()}
    times = flat[col.EVENT_TIMES_MS]
    if times.type != pa.int64() or times.null_count:
        came = f"{times.type} with {times.null_count} nulls"
        raise SchemaError(
            Fault(f"{_TABLE}, column {col.EVENT_TIMES_MS}", "int64 without nulls", came, "write the times in milliseconds")
        )
    items = comparable_ids(flat[col.ITEM_IDS], f"{_TABLE}, column {col.ITEM_IDS}")
    return _Day(
        user_ids=comparable_ids(table.column(col.USER_ID), f"{_TABLE}, column {col.USER_ID}"),
        lengths=lengths,
        item_ids=combine_chunks(items),
        event_time_ms=times.to_numpy(),
        features={name: _flat_index(bucketize, name, flat[name]) for name in features},
    )


def _refuse_bad_lists(lists: Mapping[str, pa.ChunkedArray]) -> None:
    faults = [
        Fault(f"{_TABLE}, column {name}", "a list", str(column.type), "write one list per user")
        for name, column in lists.items()
        if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type))
    ]
    if faults:
        raise SchemaError(faults)
    expected = list_lengths(lists[col.ITEM_IDS])
    faults = [
        Fault(
            f"{_TABLE}, column {name}",
            "as many values as item_ids in every row",
            f"another number in {count} rows",
            "pad with nulls",
        )
        for name, column in lists.items()
        if (count := int(np.count_nonzero(list_lengths(column) != expected)))
    ]
    if faults:
        raise SchemaError(faults)


def _flat_index(bucketize: Bucketize, feature: str, values: pa.Array) -> npt.NDArray[np.int32]:
    found = bucketize_checked(bucketize, feature, values)
    if found.type != pa.int32():
        raise SchemaError(
            Fault(f"feature {feature}, embedding indices", "int32 for flat values", str(found.type), "fix the bucketizer")
        )
    return np.asarray(found.to_numpy(), dtype=np.int32)
