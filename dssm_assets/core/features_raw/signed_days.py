"""What rolling states share: the new state is the previous one, plus the day, minus the days that leave a window.

Here are the checks of the inputs and of the result of such a step; the states themselves are in `activity.py` and
`preferences.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import ibis
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core.arrays import ragged
from dssm_assets.core.arrays.ragged import IntArray, Mask
from dssm_assets.core.errors import Fault, SchemaError, WindowIncompleteError
from dssm_assets.core.features_raw.local_time import shift_day
from dssm_assets.core.features_raw.plan import DS


def check_step(
    state: str, *, windows: Sequence[int], leaving: Mapping[int, ibis.Table | None], previous: ibis.Table | None
) -> None:
    """Checks that a step has an entry per window, and that no day leaves where there is no state yet.

    Raises:
        WindowIncompleteError: with one fault per window that has no entry, or has a day although there is no state.
    """
    faults = [
        Fault(f"{state}, window of {days} days", "the day that leaves it (None before the first day)", "no entry", "pass it")
        for days in windows
        if days not in leaving
    ]
    if previous is None:
        faults += [
            Fault(
                f"{state}, window of {days} days", "no day to leave on the first day", "a day", "build the state from scratch"
            )
            for days in windows
            if leaving.get(days) is not None
        ]
    WindowIncompleteError.raise_if(faults)


def check_previous(state: str, previous: ibis.Table, columns: Sequence[str]) -> None:
    """Checks that the state of the previous day has the columns that the configuration needs.

    Raises:
        SchemaError: with one fault per missing column.
    """
    SchemaError.raise_if(
        Fault(
            f"table {state}, column {name}",
            "the column in the state of the previous day",
            "none",
            "build the state from scratch",
        )
        for name in columns
        if name not in previous.columns
    )


def union_all(tables: Sequence[ibis.Table]) -> ibis.Table:
    """Returns the rows of all tables, which have the same columns, with duplicates."""
    first, *rest = tables
    return ibis.union(first, *rest, distinct=False) if rest else first


MOVE_DAY: Final = "moved_from"
MOVE_WINDOW: Final = "window"
POSITION: Final = "position"


def list_moves(days: Sequence[str], windows: Sequence[int]) -> pa.Table:
    """Returns how rows of the log move the states of consecutive days.

    Columns: `moved_from`, the day of the rows; `ds`, the day whose state they change; `window`, the length of the window that they
    leave on that day, 0 where they enter all of them.
    """
    moves = [(ds, ds, 0) for ds in days]
    moves += [(shift_day(ds, -window), ds, window) for window in windows for ds in days]
    columns = list(zip(*moves, strict=True))
    names = (MOVE_DAY, DS, MOVE_WINDOW)
    return pa.table(columns, schema=pa.schema([(names[0], pa.string()), (names[1], pa.string()), (names[2], pa.int64())]))


def move_rows(log: ibis.Table, moves: ibis.Table, columns: Sequence[str]) -> ibis.Table:
    """Returns columns of the log, whose column `ds` is the day of each row, with `ds` and `window` of each of its moves."""
    rows = log.select(*columns, **{MOVE_DAY: log[DS].cast("string")})
    return rows.inner_join(moves, MOVE_DAY).select(DS, MOVE_WINDOW, *columns)


def number_keys(added: ibis.Table, key: Sequence[str]) -> ibis.Table:
    """Returns what is added to each key on each day (one row per `ds` and key) with `position`, the key's number in order."""
    position = ibis.dense_rank().over(order_by=[added[name] for name in key])
    return added.mutate(**{POSITION: position.cast("int64")}).order_by(DS, POSITION)


def running_states(
    added: pa.Table,
    days: Sequence[str],
    key: Sequence[str],
    *,
    sums: Sequence[str] = (),
    least: Sequence[str] = (),
    greatest: Sequence[str] = (),
) -> Iterator[tuple[str, pa.Table]]:
    """Yields (day, state): of each key that had a row up to the day the running sum, minimum or maximum of each column.

    Memory: the keys and their state once, and one day.

    Args:
        added: as `number_keys` returns it; the first day has the state before it, too.
        days: the days, ascending.
        key: columns of the key; states are ordered by it.
        sums: int64 columns to add up.
        least: int64 columns of which the state has the minimum; null is ignored.
        greatest: int64 or text columns of which the state has the maximum; null is ignored.
    """
    position = added.column(POSITION).to_numpy()
    day = pc.index_in(added.column(DS), value_set=pa.array(days, pa.string())).to_numpy()
    _, first_rows = np.unique(position, return_index=True)
    since = day[first_rows]
    keys = added.select(key).take(pa.array(first_rows)).combine_chunks()
    limits = np.iinfo(np.int64)
    ways = ((sums, np.add, 0), (least, np.minimum, limits.max), (greatest, np.maximum, limits.min))
    columns = {
        name: _Running(added.column(name), len(keys), how, int(neutral)) for names, how, neutral in ways for name in names
    }
    ends = np.searchsorted(day, np.arange(len(days)), side="right")
    for number, (ds, start, end) in enumerate(zip(days, [0, *ends[:-1]], ends, strict=True)):
        for column in columns.values():
            column.add(position[start:end], start, end)
        present = np.flatnonzero(since <= number)
        rows = keys if len(present) == len(keys) else keys.take(pa.array(present))
        for name in added.column_names:
            if name in columns:
                rows = rows.append_column(name, columns[name].values(present))
        yield ds, rows


class _Running:
    """The running sum, minimum or maximum of a column for each key."""

    def __init__(self, values: pa.ChunkedArray, keys: int, how: np.ufunc, neutral: int) -> None:
        self._how, self._neutral, self._texts = how, neutral, None
        if pa.types.is_string(values.type):
            self._texts = pc.unique(values).sort()
            values = pc.index_in(values, value_set=self._texts).cast(pa.int64())
        self._values = values.fill_null(neutral).to_numpy()
        self._state = np.full(keys, neutral, np.int64)

    def add(self, keys: npt.NDArray[np.int64], start: int, end: int) -> None:
        """Adds the rows `start` .. `end` - 1, whose keys are distinct."""
        self._state[keys] = self._how(self._state[keys], self._values[start:end])

    def values(self, keys: npt.NDArray[np.int64]) -> pa.Array:
        """Returns the state of some keys."""
        state = self._state[keys]
        found = pa.array(state, mask=None if self._how is np.add else state == self._neutral)
        return found if self._texts is None else self._texts.take(found)


def merge_changes(
    before: pa.Table,
    changes: pa.Table,
    key: Sequence[str],
    keep: Callable[[pa.Table], Any],
    *,
    sums: Sequence[str] = (),
    least: Sequence[str] = (),
    greatest: Sequence[str] = (),
) -> pa.Table:
    """Returns the rows of a state and of its changes in the order of the key: a change replaces the row that has its key.

    A day changes few rows of a long state: each is looked up, and the others stay in their order.

    Args:
        before: rows of the state, ordered by the key; columns of texts may be dictionary-encoded.
        changes: rows in the same order, with the same types, one per key.
        key: columns of the key, without nulls.
        keep: returns which of the rows, old and changed, the new state has (bool).
        sums: int64 columns in which a change is added to the row that it replaces.
        least: int64 columns of which the minimum of the change and the row that it replaces is kept; null is ignored.
        greatest: int64 columns of which the maximum is kept; null is ignored.
    """
    count = len(before)
    rows = pa.concat_tables([before, changes]).unify_dictionaries().combine_chunks()
    places, is_known = _find_rows([_rank_texts(ragged.combine_chunks(rows.column(name))) for name in key], count)
    for names, how in ((sums, pc.add_checked), (least, pc.min_element_wise), (greatest, pc.max_element_wise)):
        for name in names:
            values = ragged.combine_chunks(rows.column(name))
            nothing = pa.scalar(0 if how is pc.add_checked else None, values.type)
            merged = how(pc.if_else(pa.array(is_known), values.take(pa.array(places)), nothing), values.slice(count))
            rows = rows.set_column(rows.column_names.index(name), name, pa.concat_arrays([values.slice(0, count), merged]))
    is_kept = keep(rows).to_numpy(zero_copy_only=False)
    old, new = np.delete(np.arange(count), places[is_known]), np.flatnonzero(is_kept[count:])
    old = old[is_kept[old]]
    return rows.take(pa.array(np.insert(old, np.searchsorted(old, places[new]), count + new)))


def _rank_texts(values: pa.Array) -> pa.Array:
    """Returns numbers in place of dictionary-encoded texts, in the same order."""
    if not pa.types.is_dictionary(values.type):
        return values
    ranks = np.argsort(pc.sort_indices(values.dictionary).to_numpy())
    return pa.array(ranks[values.indices.to_numpy()])


_STRIDE: Final = 64
"""Of so many changes with texts as ids the first is looked up among all rows, the others between it and that of the next ones."""


def _find_rows(key: Sequence[pa.Array], count: int) -> tuple[IntArray, Mask]:
    """Returns the first of the rows 0 .. count - 1 with a key of at least that of each later row, and whether they are equal."""
    wanted = [values.slice(count) for values in key]
    if pa.types.is_integer(key[0].type):
        known = key[0].slice(0, count).to_numpy()
        low, high = (np.searchsorted(known, wanted[0].to_numpy(), side) for side in ("left", "right"))
        key, wanted, end = key[1:], wanted[1:], high
    else:
        some = [values.take(pa.array(np.arange(0, len(values), _STRIDE))) for values in wanted]
        bounds = _bisect(key, some, np.zeros(len(some[0]), np.int64), np.full(len(some[0]), count))
        low, high = (np.repeat(bound, _STRIDE)[: len(wanted[0])] for bound in (bounds, np.append(bounds[1:], count)))
        end = np.full(len(low), count)
    places = _bisect(key, wanted, low, high)
    return places, _compare_rows(key, places, wanted)[1] & (places < end)


def _bisect(key: Sequence[pa.Array], wanted: Sequence[pa.Array], low: IntArray, high: IntArray) -> IntArray:
    """Returns the first row from low on and before high with a key of at least the wanted one, high if there is none."""
    while (is_open := low < high).any():
        middle = (low + high) // 2
        is_less, _ = _compare_rows(key, middle, wanted)
        low, high = np.where(is_open & is_less, middle + 1, low), np.where(is_open & ~is_less, middle, high)
    return low


def _compare_rows(key: Sequence[pa.Array], places: IntArray, wanted: Sequence[pa.Array]) -> tuple[Mask, Mask]:
    """Returns whether the rows at these places have a smaller key than the wanted ones, and whether an equal one."""
    is_less, is_equal = np.zeros(len(places), bool), np.ones(len(places), bool)
    for values, others in zip(key, wanted, strict=True):
        known = values.take(pa.array(places))
        is_less |= is_equal & pc.less(known, others).to_numpy(zero_copy_only=False)
        is_equal &= pc.equal(known, others).to_numpy(zero_copy_only=False)
    return is_less, is_equal


def check_no_negative(table: pa.Table | pa.RecordBatch, state: str) -> None:
    """Checks that no count of a state is negative, which means that a day was rewritten after it had been added.

    Sums of values may be negative (refunds).

    Raises:
        SchemaError: with one fault per count column with negative entries.
    """
    faults: list[Fault] = []
    for name in table.schema.names:
        if name != "count" and not name.startswith("count_"):
            continue
        negative = pc.sum(pc.less(table.column(name), 0)).as_py() or 0
        if negative:
            remedy = "a past day changed after it was counted: build the state of that day and of all later days again"
            faults.append(Fault(f"table {state}, column {name}", "counts of 0 or more", f"{negative} negative", remedy))
    SchemaError.raise_if(faults)
