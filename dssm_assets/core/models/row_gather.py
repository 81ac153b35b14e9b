"""Rows of an Arrow table in any number of chunks, gathered as if it had one.

A table that was written day by day has a chunk per day, and a batch of training needs a few rows of each: read chunk by
chunk, numpy is called so often for so few values that the calls cost several times the reading. But all chunks lie in
the one memory of this process, so a value of any chunk has a place in that memory, and a batch is one gather.

Belongs here: `RowGather`. Does not belong here: what columns mean, and the check of their types and nulls (`table_view`).

Letters: B rows asked for, C chunks, F flat columns, P parts of columns (values; offsets of lists), n values of a list column.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dssm_assets.core.models.bags import IntArray, ragged_positions

Array = npt.NDArray[Any]
_WORD_BYTES = 8


@dataclass(frozen=True)
class Rows:
    """Rows of a table and the chunk of each, found once so that every column can reuse it."""

    rows: IntArray  # [B]
    chunk: IntArray  # [B]


class RowGather:
    """Reads rows of a table by number, in any order. Nothing is copied before it is read."""

    def __init__(self, table: pa.Table, *, flat: Sequence[str] = (), lists: Sequence[str] = ()) -> None:
        """Notes where the columns lie and keeps them alive.

        Args:
            table: its columns have no nulls and types of 4 or 8 bytes, or lists of them.
            flat: columns of single values.
            lists: columns of lists.
        """
        batches = [batch for batch in table.select([*flat, *lists]).to_batches() if batch.num_rows]
        counts = np.array([batch.num_rows for batch in batches], np.int64)
        self._ends = np.cumsum(counts)
        columns = {name: [batch.column(name) for batch in batches] for name in (*flat, *lists)}
        singles = [[_numpy(chunk) for chunk in columns[name]] for name in flat]
        offsets = [[_numpy(chunk.offsets) for chunk in columns[name]] for name in lists]
        values = [[_numpy(chunk.values) for chunk in columns[name]] for name in lists]
        self._memory = _Memory([*singles, *offsets, *values], len(batches))
        # The first row of a chunk is row `end - count` of the table: a place less that number, plus a row's own.
        by_row = self._memory.places[: len(flat) + len(lists)] - (self._ends - counts)
        self._together = np.ascontiguousarray(by_row[: len(flat)].T)  # [C, F]
        self._flat = dict(zip(flat, by_row, strict=False))
        self._offsets = dict(zip(lists, by_row[len(flat) :], strict=True))
        self._values = dict(zip(lists, self._memory.places[len(flat) + len(lists) :], strict=True))
        kinds = [chunks[0].dtype if chunks else np.dtype(np.int32) for chunks in (*singles, *values)]
        self._kinds = dict(zip((*flat, *lists), kinds, strict=True))

    def select(self, rows: npt.NDArray[Any]) -> Rows:
        """Returns these rows, in this order, ready to be read.

        Raises:
            IndexError: a row is not in the table.
        """
        count = int(self._ends[-1]) if len(self._ends) else 0
        if len(rows) and (rows.min() < 0 or rows.max() >= count):
            raise IndexError(f"rows {rows.min()} .. {rows.max()} of a table of {count}")
        return Rows(rows.astype(np.int64, copy=False), np.searchsorted(self._ends, rows, side="right"))

    def take(self, column: str, at: Rows) -> Array:
        """Returns the values of a flat column [B]."""
        return self._memory.read(self._flat[column].take(at.chunk) + at.rows, self._kinds[column])

    def take_each(self, at: Rows) -> dict[str, Array]:
        """Returns the values of every flat column [B]."""
        places = self._places(at)
        return {name: self._memory.read(places[:, k], self._kinds[name]) for k, name in enumerate(self._flat)}

    def take_flat(self, at: Rows) -> Array:
        """Returns the values of all flat columns, which have one type, in the order they were given in [B, F]."""
        places = self._places(at)
        return self._memory.read(places, next(map(self._kinds.__getitem__, self._flat), places.dtype))

    def take_list(self, column: str, at: Rows) -> tuple[Array, IntArray]:
        """Returns the values [n] of the rows' lists and their offsets [B + 1]."""
        begin = self._offsets[column].take(at.chunk) + at.rows
        first = self._values[column].take(at.chunk)
        low, high = (self._memory.read(places, np.dtype(np.int32)) for places in (begin, begin + 1))
        positions, bounds = ragged_positions(first + low, first + high)
        return self._memory.read(positions, self._kinds[column]), bounds

    def _places(self, at: Rows) -> IntArray:
        places = self._together.take(at.chunk, axis=0)
        places += at.rows[:, None]
        return places


class _Memory:
    """The stretch of memory from the first of some arrays to the last, seen as one array of any type.

    What lies between the arrays is none of ours: only places inside of them may be read.
    """

    def __init__(self, arrays: Sequence[Sequence[Array]], chunk_count: int) -> None:
        """Notes where arrays [P, C] lie and keeps them alive."""
        self._held = arrays
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
        self.places: IntArray = found.reshape(len(arrays), chunk_count)
        """Where each array begins, counted in values of its type [P, C]."""

    def read(self, places: IntArray, kind: np.dtype[Any]) -> Array:
        """Returns the values at these places [any shape]."""
        return self._views[kind].take(places)


def _numpy(array: pa.Array) -> Array:
    found: Array = array.to_numpy(zero_copy_only=True)
    # A place is counted in whole values: what does not start at a multiple of its size is copied to where it does.
    return found if found.flags.aligned else found.copy()
