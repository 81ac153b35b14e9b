"""Every user's positives in one array by time, and the place in it up to which a sample may look.

Belongs here: the compressed sparse rows (CSR) of histories and the search in them. Does not belong here: the
rows of one day (features_raw), their features (fg) and the cut to the last items of a history (the batcher).

Letters: U users, H history rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core import columns as col
from dssm_assets.core.errors import Fault, SchemaError, WindowIncompleteError
from dssm_assets.core.samples.embedding_index import Bucketize, embedding_index
from dssm_assets.core.samples.id_index import IdIndex, comparable_ids, one_array, refuse_type_change
from dssm_assets.core.samples.specs import history_schema, require_columns, users_schema

_TABLE = "table user_history_fg"


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


@dataclass(frozen=True)
class _Day:
    """The rows of one day, flat: one entry per user, and one per item of all users."""

    user_ids: pa.ChunkedArray
    lengths: npt.NDArray[np.int64]
    item_ids: pa.Array
    event_time_ms: npt.NDArray[np.int64]
    features: dict[str, npt.NDArray[np.int32]]


def build_history(
    days: Iterable[pa.Table], item_index: IdIndex, bucketize: Bucketize, *, features: Sequence[str] = ()
) -> HistoryCsr:
    """Returns the histories of all users in the given days.

    Args:
        days: user_history_fg, one table per day, in any order; read one at a time. A table without rows is fine.
        item_index: the corpus, by row.
        bucketize: called per day and sub-feature with the flat int64 values.
        features: the sequence sub-features to keep, named `seq__feat` as their columns.

    Raises:
        WindowIncompleteError: there is no table at all.
        SchemaError: a column is missing, has the wrong type, its lists differ in length from item_ids, or an id or
            time is null.
    """
    read = [_read_day(table, bucketize, features) for table in days]
    if not read:
        raise WindowIncompleteError(Fault(_TABLE, "at least one day", "none", "materialize user_history_fg for the window"))
    for day in read[1:]:
        refuse_type_change(f"{_TABLE}, column {col.USER_ID}", read[0].user_ids.type, day.user_ids.type)
        refuse_type_change(f"{_TABLE}, column {col.ITEM_IDS}", read[0].item_ids.type, day.item_ids.type)
    active = pa.chunked_array([chunk for day in read for chunk in day.user_ids.chunks], type=read[0].user_ids.type)
    users = _sorted_index(active, col.USER_ID)
    user_index = np.repeat(users.lookup(active), np.concatenate([day.lengths for day in read]))
    times = np.concatenate([day.event_time_ms for day in read])
    item_ids = pa.chunked_array([day.item_ids for day in read])
    distinct_items = _sorted_index(item_ids, col.ITEM_IDS)
    item_rank = distinct_items.lookup(item_ids)
    items = item_index.lookup(distinct_items.ids, where=f"{_TABLE}, column {col.ITEM_IDS}")[item_rank]
    # item_rank makes the order of a basket (one user, one time, many items) independent of the order of its days.
    order = np.lexsort((item_rank, times, user_index))
    ends = np.cumsum(np.bincount(user_index, minlength=len(users)), dtype=np.int64)
    return HistoryCsr(
        users=users,
        starts=np.concatenate([np.zeros(1, dtype=np.int64), ends])[: len(users)],
        ends=ends,
        item_index=items[order],
        event_time_ms=times[order],
        features={name: np.concatenate([day.features[name] for day in read])[order] for name in features},
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


def _read_day(table: pa.Table, bucketize: Bucketize, features: Sequence[str]) -> _Day:
    require_columns(_TABLE, table.column_names, [col.USER_ID, col.ITEM_IDS, col.EVENT_TIMES_MS, *features])
    lists = {name: table.column(name) for name in (col.ITEM_IDS, col.EVENT_TIMES_MS, *features)}
    _refuse_bad_lists(lists)
    lengths = _lengths(lists[col.ITEM_IDS])
    flat = {name: one_array(pc.list_flatten(column)) for name, column in lists.items()}
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
        item_ids=one_array(items),
        event_time_ms=times.to_numpy(),
        features={name: _flat_index(bucketize, name, flat[name]) for name in features},
    )


def _sorted_index(ids: pa.ChunkedArray, column: str) -> IdIndex:
    """Returns the distinct ids in ascending order, so that an id's row is its rank."""
    distinct = pc.unique(ids)
    return IdIndex(distinct.take(pc.sort_indices(distinct)), where=f"{_TABLE}, column {column}")


def _refuse_bad_lists(lists: Mapping[str, pa.ChunkedArray]) -> None:
    faults = [
        Fault(f"{_TABLE}, column {name}", "a list", str(column.type), "write one list per user")
        for name, column in lists.items()
        if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type))
    ]
    if faults:
        raise SchemaError(faults)
    expected = _lengths(lists[col.ITEM_IDS])
    faults = [
        Fault(
            f"{_TABLE}, column {name}",
            "as many values as item_ids in every row",
            f"another number in {count} rows",
            "pad with nulls",
        )
        for name, column in lists.items()
        if (count := int(np.count_nonzero(_lengths(column) != expected)))
    ]
    if faults:
        raise SchemaError(faults)


def _lengths(column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    lengths: npt.NDArray[np.int64] = pc.fill_null(pc.list_value_length(column), 0).to_numpy().astype(np.int64)
    return lengths


def _flat_index(bucketize: Bucketize, feature: str, values: pa.Array) -> npt.NDArray[np.int32]:
    found = embedding_index(bucketize, feature, values)
    if found.type != pa.int32():
        raise SchemaError(
            Fault(f"feature {feature}, embedding indices", "int32 for flat values", str(found.type), "mend the bucketizer")
        )
    return np.asarray(found.to_numpy(), dtype=np.int32)
