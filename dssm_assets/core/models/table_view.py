"""Rows of Arrow tables as numpy arrays, gathered from where they lie, so that a memory-mapped table stays on disk.

Belongs here: `TableView`. Does not belong here: what the columns mean.

Letters: B rows asked for, n values of a list column.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dssm_assets.core.errors import Fault, SchemaError
from dssm_assets.core.models.bags import IntArray, offsets_of, ragged_positions

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Selection:
    """Rows of a table, sorted into its chunks once so that every column can reuse it."""

    local: tuple[tuple[int, IntArray], ...]  # (chunk, rows within it)
    inverse: IntArray | None  # position of each asked row in the concatenated chunks; None: already in order


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

    def take(self, column: str, selection: Selection) -> Array:
        """Returns the column's values of the selected rows [B]."""
        parts = self._flat[column]
        return _joined([parts[chunk][rows] for chunk, rows in selection.local], selection)

    def take_list(self, column: str, selection: Selection) -> tuple[Array, IntArray]:
        """Returns the values [n] of the selected rows' lists and their offsets [B + 1]."""
        values, lengths = [], []
        for chunk, rows in selection.local:
            offsets, flat = self._lists[column][chunk]
            positions, bounds = ragged_positions(offsets[rows].astype(np.int64), offsets[rows + 1].astype(np.int64))
            values.append(flat[positions])
            lengths.append(np.diff(bounds))
        flat_values = np.concatenate(values) if values else np.zeros(0, np.int32)
        if selection.inverse is None:
            return flat_values, offsets_of(_joined(lengths, selection).astype(np.int64))
        bounds = offsets_of(np.concatenate(lengths))
        positions, ordered = ragged_positions(bounds[selection.inverse], bounds[selection.inverse + 1])
        return flat_values[positions], ordered

    def lengths(self, column: str) -> Iterable[Array]:
        """Returns how many values the lists of a list column hold, by chunk, in row order."""
        return [np.diff(offsets) for offsets, _ in self._lists[column]]

    def blocks(self, column: str) -> Iterable[Array]:
        """Returns the column's chunks as views, in row order; of a list column the values of its rows."""
        if column in self._flat:
            return list(self._flat[column])
        return [flat[offsets[0] : offsets[-1]] for offsets, flat in self._lists[column]]


def _joined(parts: list[Array], selection: Selection) -> Array:
    if not parts:
        return np.zeros(0, np.int64)
    if selection.inverse is None:
        return parts[0]
    return np.concatenate(parts)[selection.inverse]


def _numpy(array: pa.Array) -> Array:
    return np.asarray(array.to_numpy(zero_copy_only=True))


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
    if faults:
        raise SchemaError(faults)


def _is_kind(actual: pa.DataType, kind: pa.DataType) -> bool:
    if pa.types.is_list(kind):
        return bool(pa.types.is_list(actual) and actual.value_type == kind.value_type)
    return bool(actual == kind)
