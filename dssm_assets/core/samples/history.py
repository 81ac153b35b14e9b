"""The history of every user. All positive events are in one array, sorted by user and time, built from user_history_fg.

Letters: U users, H history rows.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core import columns as col
from dssm_assets.core.arrays.ids import IdCounts, IdIndex
from dssm_assets.core.arrays.ragged import bisect_ranges, combine_chunks, list_lengths, ranges
from dssm_assets.core.errors import Fault, WindowIncompleteError, remedy_of_missing
from dssm_assets.core.file_names import TrainSamplesFile
from dssm_assets.core.samples.embedding_index import Bucketize
from dssm_assets.core.samples.sample_tables import file_schema, require_columns


@dataclass(frozen=True, eq=False)
class HistoryCsr:
    """The positive events of all users, sorted by (user, event_time_ms, item_id). User u has the rows starts[u] .. ends[u]-1.

    Attributes:
        users: the user ids, ascending; the position is the user_index.
        starts: [U] int64, first row of each user.
        ends: [U] int64, the row after each user's last row.
        item_index: [H] int32, row in the corpus; -1 for an item outside the corpus.
        event_time_ms: [H] int64.
        features: sequence sub-feature -> [H] int32 embedding indices.
    """

    users: IdIndex
    starts: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]
    item_index: npt.NDArray[np.int32]
    event_time_ms: npt.NDArray[np.int64]
    features: Mapping[str, npt.NDArray[np.int32]]

    def bounds(self, user_index: npt.NDArray[np.int32]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Returns each user's first row, and the row after the last, int64 [B] each. Both are 0 for user -1 (no history)."""
        is_known = user_index >= 0
        first, end = (np.where(is_known, bound[user_index] if len(bound) else 0, 0) for bound in (self.starts, self.ends))
        return first, end

    def to_tables(self) -> tuple[pa.Table, pa.Table]:
        """Returns (history.arrow, users.arrow)."""
        events = [pa.array(column) for column in (self.item_index, self.event_time_ms, *self.features.values())]
        schema = file_schema(TrainSamplesFile.HISTORY, dict.fromkeys(self.features, pa.int32()))
        users = [self.users.ids, pa.array(self.starts), pa.array(self.ends)]
        users_table = pa.Table.from_arrays(users, schema=file_schema(TrainSamplesFile.USERS, id_type=self.users.ids.type))
        return pa.Table.from_arrays(events, schema=schema), users_table


BLOCK_ROWS: Final = 1 << 20
"""About so many events are sorted at a time. The events of one user stay together."""

Days: TypeAlias = Callable[[Sequence[str]], Iterable[pa.Table]]
"""Called with columns; reads them from user_history_fg, starting with the first day. A table has one or more whole days."""
Allocate: TypeAlias = Callable[[int, Any], npt.NDArray[Any]]
"""Called with a length and a dtype. Returns an uninitialised array."""

_TABLE = "table user_history_fg"


def build_history(
    days: Days,
    item_index: IdIndex,
    bucketize: Bucketize,
    *,
    features: Sequence[str] = (),
    allocate: Allocate = np.empty,
) -> HistoryCsr:
    """Returns the histories of all users in the given days.

    The days are read twice. The first pass counts each user's events; the second writes the events into the user's rows. Memory
    holds one table and the arrays of H rows.

    Args:
        days: reads the days, in any order. A table may have no rows.
        bucketize: called per table and sub-feature with the flat int64 values.
        features: the sequence sub-features to keep, named `seq__feat` like their columns.

    Raises:
        WindowIncompleteError: there is no table.
        SchemaError: a feature's column is missing, or an id is null or has another type than on the days before.
    """
    user_counts, item_counts = (IdCounts(f"{_TABLE}, column {name}") for name in (col.USER_ID, col.ITEM_IDS))
    for table in days([col.USER_ID, col.ITEM_IDS]):
        user_counts.update(table.column(col.USER_ID), list_lengths(table.column(col.ITEM_IDS)))
        item_counts.update(_flatten(table, col.ITEM_IDS))
    if not user_counts:
        raise WindowIncompleteError(Fault(_TABLE, "at least one day", "none", remedy_of_missing("train_and_evaluate", "DAY")))
    (user_ids, lengths), (item_ids, _) = user_counts.total(), item_counts.total()
    users, distinct_items = IdIndex(user_ids), IdIndex(item_ids)
    ends = np.cumsum(lengths)
    starts = ends - lengths
    count = int(lengths.sum())
    # `items` first has each item's rank among all items, to sort by. After sorting it has the item's row in the corpus.
    items, times = allocate(count, np.int32), allocate(count, np.int64)
    placed = {name: allocate(count, np.int32) for name in features}
    free = starts.copy()
    names = [col.USER_ID, col.ITEM_IDS, col.EVENT_TIMES_MS, *features]
    for table in days(names):
        require_columns(_TABLE, table.column_names, names)
        owners = np.repeat(users.lookup(table.column(col.USER_ID)), list_lengths(table.column(col.ITEM_IDS)))
        rows = _claim_rows(owners, free)
        items[rows] = distinct_items.lookup(_flatten(table, col.ITEM_IDS))
        times[rows] = _flatten(table, col.EVENT_TIMES_MS).to_numpy()
        for name, values in placed.items():
            values[rows] = bucketize(name, _flatten(table, name)).to_numpy()
    corpus_rows = item_index.lookup(item_ids, where=f"{_TABLE}, column {col.ITEM_IDS}")
    for first, end in _blocks(ends):
        _sort_block([times, items, *placed.values()], ends, first, end)
        items[first:end] = corpus_rows[items[first:end]]
    return HistoryCsr(users=users, starts=starts, ends=ends, item_index=items, event_time_ms=times, features=placed)


def history_end(
    history: HistoryCsr, user_index: npt.NDArray[np.int32], cutoff_ms: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Returns the first row of each user's history at or after the cutoff, per pair of user and cutoff.

    So rows starts[u] .. result-1 are exactly the user's positive events strictly before the cutoff. Events at the cutoff itself
    (the rest of a basket) are not included. A user_index of -1 (no history) gives 0.
    """
    return bisect_ranges(*history.bounds(user_index), lambda events, pairs: history.event_time_ms[events] < cutoff_ms[pairs])


def _claim_rows(user_index: npt.NDArray[np.int32], free: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Assigns each event of a day to the next free row of its user, in the day's order. Advances `free`."""
    order = np.argsort(user_index, kind="stable")
    active, counts = np.unique(user_index, return_counts=True)
    rows = np.empty(len(user_index), np.int64)
    rows[order] = ranges(free[active], counts)
    free[active] += counts
    return rows


def _blocks(ends: npt.NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Yields consecutive ranges (first, end) of rows. A range has all users with a last event in the same BLOCK_ROWS rows."""
    last = np.flatnonzero(np.diff(ends // BLOCK_ROWS, append=-1))
    yield from itertools.pairwise([0, *ends[last].tolist()])


def _sort_block(columns: list[npt.NDArray[Any]], ends: npt.NDArray[np.int64], first: int, end: int) -> None:
    """Sorts the rows first .. end - 1 of all columns by user, time and item, in place. The first two columns are times and ranks.

    If the days were read in order, only baskets (several items of one user and time) may need sorting.
    """
    user = np.searchsorted(ends, np.arange(first, end), side="right")
    time, rank = columns[0][first:end], columns[1][first:end]
    is_later = (time[1:] < time[:-1]) | ((time[1:] == time[:-1]) & (rank[1:] < rank[:-1]))
    if not (is_later & (user[1:] == user[:-1])).any():
        return
    order = np.lexsort((rank, time, user))
    for column in columns:
        column[first:end] = column[first:end][order]


def _flatten(table: pa.Table, name: str) -> pa.Array:
    return combine_chunks(pc.list_flatten(table.column(name)))
