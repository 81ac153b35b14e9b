"""Reads rows of Arrow tables by number as numpy arrays, without a copy: a memory-mapped table stays on disk.

Letters: B selected rows, n values of a list column.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dssm_assets.core.arrays.ragged import IntArray, offsets_of, ranges
from dssm_assets.core.errors import Fault, SchemaError

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Selection:
    """The numbers of selected rows, grouped by chunk. Made once and used for all columns."""

    local: tuple[tuple[int, IntArray], ...]  # (chunk, rows within it)
    inverse: IntArray | None  # position of each selected row in the concatenated chunks; None: already in order


class TableView:
    """Zero-copy numpy views of an Arrow table's columns.

    Raises:
        SchemaError: has a fault for each column that is missing, has another type or has nulls.
    """

    def __init__(self, table: pa.Table, name: str, columns: Mapping[str, pa.DataType]) -> None:
        _check(table, name, columns)
        self.name, self.num_rows = name, int(table.num_rows)
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

    def blocks(self, *columns: str) -> Iterator[tuple[Array, ...]]:
        """Yields the chunks of columns of numbers side by side, as views in row order."""
        return zip(*(self._flat[column] for column in columns), strict=True)

    def bounds(self, column: str) -> tuple[int, int]:
        """Returns the smallest and the largest number in a column or its lists, 0 and 0 if there is none."""
        blocks = self._flat.get(column) or [flat[offsets[0] : offsets[-1]] for offsets, flat in self._lists.get(column, ())]
        filled = [block for block in blocks if len(block)]
        return min((int(block.min()) for block in filled), default=0), max((int(block.max()) for block in filled), default=0)


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
        elif (actual := table.schema.field(column).type) != kind:
            faults.append(Fault(where, str(kind), str(actual), "write the column with this type"))
        elif nulls := table.column(column).null_count:
            got = f"{nulls} nulls in {table.num_rows} rows"
            faults.append(Fault(where, "no nulls", got, "write 0 (missing) instead of null"))
    SchemaError.raise_if(faults)
