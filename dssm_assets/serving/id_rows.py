"""Look-up of single ids and vectors in the memory-mapped tables of a bundle.

A look-up is a binary search over the sorted ids. It takes microseconds, and the index needs 8 bytes per id (16 for
integers), however long the ids are.

Shapes: N ids, D vector dimension.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core.arrays.ids import comparable_ids
from dssm_assets.core.arrays.ragged import combine_chunks
from dssm_assets.core.errors import DuplicateKeyError, Fault, InputError
from dssm_assets.core.retrieval.vectors import to_matrix

Id = int | str

MAX_BAD_IDS = 100
"""After so many values that are not ids, a list is not looked at further."""

_INT64 = range(-(2**63), 2**63)


class UnknownIdError(InputError):
    """The bundle has no such user or item."""


class IdRows:
    """The row of each id."""

    def __init__(self, ids: pa.Array | pa.ChunkedArray, where: str) -> None:
        """Indexes a column of ids.

        Raises:
            SchemaError: ids that are neither integers nor text, or are null.
            DuplicateKeyError: an id occurs more than once.
        """
        self._ids: pa.Array = combine_chunks(comparable_ids(ids, where))
        self.is_integer: bool = pa.types.is_integer(self._ids.type)
        order = pc.sort_indices(self._ids)
        ascending = self._ids.take(order)
        repeats = pc.sum(pc.equal(ascending.slice(1), ascending.slice(0, max(len(ascending) - 1, 0)))).as_py()
        if repeats:
            raise DuplicateKeyError(Fault(where, "unique ids", f"{repeats} repeated ids", "keep one row per id"))
        self._order = order.to_numpy()
        self._numbers = self._ids.to_numpy() if self.is_integer else None
        self._ascending = ascending.to_numpy() if self.is_integer else None
        if not self.is_integer:
            _, offsets, text = self._ids.buffers()
            self._offsets = memoryview(offsets or b"").cast("B").cast("i")[self._ids.offset :]
            self._text = memoryview(text or b"")

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def id_type(self) -> pa.DataType:
        return self._ids.type

    def find_row(self, wanted: Id) -> int:
        """Returns the row of an id in the bundle's type (see `parse_id`), -1 if it is unknown."""
        if self._ascending is not None:
            position = int(np.searchsorted(self._ascending, wanted))
        else:
            # UTF-8 has the order of its characters.
            text = str(wanted).encode()
            position = bisect.bisect_left(
                self._order, text, key=lambda row: bytes(self._text[self._offsets[row] : self._offsets[row + 1]])
            )
        if position == len(self._order):
            return -1
        row = int(self._order[position])
        return row if self._ids[row].as_py() == wanted else -1

    def ids_at(self, rows: npt.NDArray[np.int64]) -> list[Id]:
        """Returns the ids of some rows, in the order of the rows."""
        found: list[Id] = self._ids.take(pa.array(rows)).to_pylist() if self._numbers is None else self._numbers[rows].tolist()
        return found

    def rows_of(self, ids: pa.ChunkedArray) -> npt.NDArray[np.int64]:
        """Returns the row of each id of a column of the bundle's type, -1 of unknown ones."""
        found: npt.NDArray[np.int64] = pc.fill_null(pc.index_in(ids, self._ids), -1).to_numpy().astype(np.int64)
        return found

    def is_same_column(self, others: pa.ChunkedArray) -> bool:
        """Returns whether another column has the same ids in the same rows."""
        own = pa.chunked_array([self._ids]).cast(others.type)
        return bool(own.equals(others))

    def parse_id(self, value: Any, where: str) -> Id:
        """Returns an id in the bundle's type: text of digits becomes an integer if ids are integers, otherwise text.

        Raises:
            InputError: the value is not an id.
        """
        fault = Fault(where, "an integer id" if self.is_integer else "a text id", repr(value)[:80], "correct the id")
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise InputError(fault)
        if not self.is_integer:
            text = str(value)
            if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
                raise InputError(fault)  # half a surrogate pair, which no table can hold
            return text
        try:
            number = int(value) if isinstance(value, int) or len(value) <= 20 else None
        except ValueError:
            number = None
        if number is None or number not in _INT64:
            raise InputError(fault)
        return number

    def parse_ids(self, values: Sequence[Any], where: str) -> list[Id]:
        """Returns ids in the bundle's type.

        Raises:
            InputError: naming the values that are not ids, the first MAX_BAD_IDS of them.
        """
        parsed: list[Id] = []
        faults: list[Fault] = []
        for number, value in enumerate(values):
            try:
                parsed.append(self.parse_id(value, f"{where}[{number}]"))
            except InputError as error:
                faults += error.faults
                if len(faults) == MAX_BAD_IDS:
                    break
        InputError.raise_if(faults)
        return parsed


class VectorRows:
    """Vectors [N, D] of an Arrow column, read in place."""

    def __init__(self, column: pa.ChunkedArray, where: str) -> None:
        """Views a fixed_size_list<float32> column.

        Raises:
            InputError: the column has another type or a missing vector.
        """
        self._chunks = [to_matrix(chunk, where) for chunk in column.chunks if len(chunk)]
        self._starts = np.cumsum([0, *(len(chunk) for chunk in self._chunks)]).tolist()
        self.dims: int = column.type.list_size if pa.types.is_fixed_size_list(column.type) else 0

    def __len__(self) -> int:
        return int(self._starts[-1])

    def vector(self, row: int) -> npt.NDArray[np.float32]:
        """Returns the vector of a row, float32 [D], without copying it."""
        chunk = bisect.bisect_right(self._starts, row) - 1
        found: npt.NDArray[np.float32] = self._chunks[chunk][row - self._starts[chunk]]
        return found

    def matrix_of(self, rows: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Returns a matrix that has the vectors of some rows, and the place in it of each; of -1 any place.

        Of a column in one piece the matrix is the column itself, which is not copied.
        """
        if len(self._chunks) == 1:
            return self._chunks[0], rows
        found, places = np.unique(np.maximum(rows, 0), return_inverse=True)
        return self.take(found), places.reshape(rows.shape)

    def take(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Returns the vectors of ascending rows, float32 [R, D], copied."""
        bounds = np.searchsorted(rows, self._starts)
        parts = [
            chunk[rows[first:end] - start]
            for chunk, start, first, end in zip(self._chunks, self._starts, bounds[:-1], bounds[1:], strict=False)
        ]
        return np.concatenate(parts) if len(parts) != 1 else parts[0]
