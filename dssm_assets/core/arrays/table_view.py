"""Rows of Arrow tables as numpy arrays, read by number without a copy, so that a memory-mapped table stays on disk.

`TableView` checks its columns and reads any type, chunk by chunk. `RowGather` reads random rows of a table of many chunks
several times faster, and only values of 4 or 8 bytes: it addresses all chunks as one stretch of memory. A value of a column is
a miss of the cache; rows that are read again and again can be copied into records, of which each is one miss or two.

Letters: B selected rows, n values of a list column, C chunks, F flat columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dssm_assets.core.arrays.ragged import IntArray, offsets_of, ranges
from dssm_assets.core.errors import Fault, SchemaError

Array = npt.NDArray[Any]
Concat: TypeAlias = Callable[[Iterable[Array], Any], Array]
"""Concatenates arrays of a type in a place that has room for them, such as a mapped file."""


@dataclass(frozen=True)
class Selection:
    """Selected rows grouped by chunk, once for all columns."""

    local: tuple[tuple[int, IntArray], ...]  # (chunk, rows within it)
    inverse: IntArray | None  # position of each selected row in the concatenated chunks; None: already in order


class TableView:
    """Zero-copy numpy views of an Arrow table's columns.

    Raises:
        SchemaError: with one fault per column that is missing, has another type or has nulls.
    """

    def __init__(self, table: pa.Table, name: str, columns: Mapping[str, pa.DataType]) -> None:
        _check(table, name, columns)
        self.num_rows: int = table.num_rows
        batches = [batch for batch in table.select(list(columns)).to_batches() if batch.num_rows]
        self._starts = offsets_of(np.array([batch.num_rows for batch in batches], np.int64))
        self._flat: dict[str, list[Array]] = {}
        self._lists: dict[str, list[tuple[Array, Array]]] = {}
        for column, kind in columns.items():
            chunks = [batch.column(column) for batch in batches]
            if pa.types.is_list(kind):
                self._lists[column] = [(_numpy(chunk.offsets), _numpy(chunk.values)) for chunk in chunks]
            else:
                self._flat[column] = [_numpy(chunk) for chunk in chunks]

    def select(self, rows: IntArray) -> Selection:
        """Returns the selection of these rows, in this order."""
        if not len(rows) or len(self._starts) <= 2:
            return Selection(((0, rows),) if len(rows) else (), None)
        chunk = np.searchsorted(self._starts, rows, side="right") - 1
        order = np.argsort(chunk, kind="stable")
        used, first = np.unique(chunk[order], return_index=True)
        parts = np.split(rows[order], first[1:])
        inverse = np.empty_like(order)
        inverse[order] = np.arange(len(order))
        return Selection(tuple((int(c), p - self._starts[c]) for c, p in zip(used, parts, strict=True)), inverse)

    def read_column(self, column: str, selection: Selection) -> Array:
        """Returns the column's values of the selected rows [B]."""
        parts = self._flat[column]
        return _in_order([parts[chunk].take(rows) for chunk, rows in selection.local], selection)

    def read_list(self, column: str, selection: Selection) -> tuple[Array, IntArray]:
        """Returns the values [n] of the selected rows' lists and their offsets [B + 1]."""
        values, lengths = [], []
        for chunk, rows in selection.local:
            offsets, flat = self._lists[column][chunk]
            lengths.append(offsets[rows + 1] - offsets[rows])
            values.append(flat.take(ranges(offsets[rows].astype(np.int64), lengths[-1])))
        flat_values = np.concatenate(values) if values else np.zeros(0, np.int32)
        if selection.inverse is None:
            return flat_values, offsets_of(_in_order(lengths, selection))
        by_chunk = np.concatenate(lengths)
        in_order = by_chunk[selection.inverse]
        return flat_values[ranges(offsets_of(by_chunk)[selection.inverse], in_order)], offsets_of(in_order)

    def lengths(self, column: str) -> Iterable[Array]:
        """Returns the lengths of a list column's lists, chunk by chunk, in row order."""
        return [np.diff(offsets) for offsets, _ in self._lists[column]]

    def blocks(self, column: str) -> Iterable[Array]:
        """Returns the column's chunks as views, in row order; for a list column, the values of its lists."""
        if column in self._flat:
            return list(self._flat[column])
        return [flat[offsets[0] : offsets[-1]] for offsets, flat in self._lists[column]]


def _in_order(parts: list[Array], selection: Selection) -> Array:
    if not parts:
        return np.zeros(0, np.int64)
    if selection.inverse is None:
        return parts[0]
    return np.concatenate(parts)[selection.inverse]


def _numpy(array: pa.Array) -> Array:
    found: Array = array.to_numpy(zero_copy_only=True)
    return found if found.flags.aligned else found.copy()


def _check(table: pa.Table, name: str, columns: Mapping[str, pa.DataType]) -> None:
    faults = []
    for column, kind in columns.items():
        where = f"table {name}, column {column}"
        if column not in table.column_names:
            came = ", ".join(table.column_names) or "no columns"
            faults.append(Fault(where, "the column to exist", f"columns {came}", "write the column or drop the feature"))
            continue
        actual, nulls = table.schema.field(column).type, table.column(column).null_count
        if not _is_kind(actual, kind):
            faults.append(Fault(where, str(kind), str(actual), "write the column with this type"))
        elif nulls:
            faults.append(
                Fault(where, "no nulls", f"{nulls} nulls in {table.num_rows} rows", "write 0 (missing) instead of null")
            )
    SchemaError.raise_if(faults)


def _is_kind(actual: pa.DataType, kind: pa.DataType) -> bool:
    if pa.types.is_list(kind):
        return bool(pa.types.is_list(actual) and actual.value_type == kind.value_type)
    return bool(actual == kind)


_WORD_BYTES = 8
_BLOCK_ROWS = 1 << 12


@dataclass(frozen=True)
class Rows:
    """Selected rows and the chunk of each, found once for all columns."""

    rows: IntArray  # [B]
    ends: IntArray  # of the chunks [C]

    @cached_property
    def chunk(self) -> IntArray:
        """The chunk of each row [B]."""
        return np.searchsorted(self.ends, self.rows, side="right")


class RowGather:
    """Reads rows of a table by number, in any order; only the rows that are read are copied, unless records are wanted."""

    def __init__(
        self, table: pa.Table, *, flat: Sequence[str] = (), lists: Sequence[str] = (), concat: Concat | None = None
    ) -> None:
        """Records the address of each chunk and keeps the columns alive.

        Args:
            table: its columns have no nulls and types of 4 or 8 bytes, or lists of them.
            lists: columns of lists.
            concat: copies the flat columns into records; None: nothing is copied.
        """
        batches = [batch for batch in table.select([*flat, *lists]).to_batches() if batch.num_rows]
        counts = np.array([batch.num_rows for batch in batches], np.int64)
        self._ends = np.cumsum(counts)
        columns = {name: [batch.column(name) for batch in batches] for name in (*flat, *lists)}
        singles = [[_numpy(chunk) for chunk in columns[name]] for name in flat]
        offsets = [[_numpy(chunk.offsets) for chunk in columns[name]] for name in lists]
        values = [[_numpy(chunk.values) for chunk in columns[name]] for name in lists]
        self._memory = _Memory([*singles, *offsets, *values], len(batches))
        # A chunk's first row is row `end - count` of the table, so the address of row r is `by_row[chunk] + r`.
        by_row = self._memory.addresses[: len(flat) + len(lists)] - (self._ends - counts)
        self._flat_addresses = np.ascontiguousarray(by_row[: len(flat)].T)  # [C, F]
        self._flat = dict(zip(flat, by_row, strict=False))
        self._offsets = dict(zip(lists, by_row[len(flat) :], strict=True))
        self._values = dict(zip(lists, self._memory.addresses[len(flat) + len(lists) :], strict=True))
        kinds = [chunks[0].dtype if chunks else np.dtype(np.int32) for chunks in (*singles, *values)]
        self._kinds = dict(zip((*flat, *lists), kinds, strict=True))
        self._records: Array | None = None  # [rows]
        if concat is not None and flat:
            record = np.dtype([(name, self._kinds[name]) for name in flat])
            self._records = np.asarray(concat(_records({name: columns[name] for name in flat}, record), record)).view(record)

    def select(self, rows: npt.NDArray[Any]) -> Rows:
        """Returns the selection of these rows, in this order.

        Raises:
            IndexError: a row is not in the table.
        """
        count = int(self._ends[-1]) if len(self._ends) else 0
        if len(rows) and (rows.min() < 0 or rows.max() >= count):
            raise IndexError(f"rows {rows.min()} .. {rows.max()} of a table of {count}")
        return Rows(rows.astype(np.int64, copy=False), self._ends)

    def read_column(self, column: str, at: Rows) -> Array:
        """Returns the values of a flat column [B]."""
        return self._memory.read(self._flat[column].take(at.chunk) + at.rows, self._kinds[column])

    def read_columns(self, at: Rows) -> dict[str, Array]:
        """Returns the values of every flat column [B]."""
        if self._records is not None:
            records = self._records.take(at.rows)
            return {name: records[name].copy() for name in self._flat}
        addresses = self._addresses(at)
        return {name: self._memory.read(addresses[:, k], self._kinds[name]) for k, name in enumerate(self._flat)}

    def read_matrix(self, at: Rows) -> Array:
        """Returns the values of all flat columns, which must have one type, in the order of the constructor [B, F]."""
        kind = next(map(self._kinds.__getitem__, self._flat), np.dtype(np.int64))
        if self._records is not None:
            return self._records.take(at.rows).view(kind).reshape(len(at.rows), len(self._flat))
        return self._memory.read(self._addresses(at), kind)

    def read_list(self, column: str, at: Rows) -> tuple[Array, IntArray]:
        """Returns the values [n] of the rows' lists and their offsets [B + 1]."""
        begin = self._offsets[column].take(at.chunk) + at.rows
        first = self._values[column].take(at.chunk)
        low, high = (self._memory.read(addresses, np.dtype(np.int32)) for addresses in (begin, begin + 1))
        return self._memory.read(ranges(first + low, high - low), self._kinds[column]), offsets_of(high - low)

    def _addresses(self, at: Rows) -> IntArray:
        addresses = self._flat_addresses.take(at.chunk, axis=0)
        addresses += at.rows[:, None]
        return addresses


def _records(columns: Mapping[str, Sequence[pa.Array]], record: np.dtype[Any]) -> Iterator[Array]:
    """Yields the rows of some columns, of the same chunks, as records; few enough at once for the processor's cache."""
    for chunks in zip(*columns.values(), strict=True):
        views = dict(zip(columns, map(_numpy, chunks), strict=True))
        for begin in range(0, len(chunks[0]), _BLOCK_ROWS):
            block = np.empty(min(_BLOCK_ROWS, len(chunks[0]) - begin), record)
            for name, view in views.items():
                block[name] = view[begin : begin + len(block)]
            yield block


class _Memory:
    """The stretch of memory from the first of some arrays to the last, viewed as one array per type.

    Memory between the arrays belongs to others: only addresses inside the arrays may be read.
    """

    def __init__(self, arrays: Sequence[Sequence[Array]], chunk_count: int) -> None:
        """Records the addresses of arrays [P, C] and keeps them alive."""
        self._arrays = arrays
        flat = [array for part in arrays for array in part]
        sizes = np.array([array.nbytes for array in flat], np.int64)
        starts = np.array([array.__array_interface__["data"][0] for array in flat], np.int64)
        is_there = sizes > 0
        low = int(starts[is_there].min()) // _WORD_BYTES * _WORD_BYTES if is_there.any() else 0
        words = -(-(int((starts + sizes)[is_there].max()) - low) // _WORD_BYTES) if is_there.any() else 0
        buffer = pa.foreign_buffer(low, words * _WORD_BYTES) if words else b""
        self._views = {np.dtype(kind): np.frombuffer(buffer, kind) for kind in (np.int32, np.int64, np.float32, np.float64)}
        items = np.array([array.itemsize for array in flat], np.int64)
        found = np.where(is_there, (starts - low) // np.maximum(items, 1), 0)
        self.addresses: IntArray = found.reshape(len(arrays), chunk_count)
        """Start of each array, counted in values of its type from the start of the stretch [P, C]."""

    def read(self, addresses: IntArray, kind: np.dtype[Any]) -> Array:
        """Returns the values at these addresses [any shape]."""
        return self._views[kind].take(addresses)
