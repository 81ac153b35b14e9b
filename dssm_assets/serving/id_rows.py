"""Ids of a bundle and their vectors, one at a time, from where they lie in the memory map.

Belongs here: from one id to its row, from rows to ids, the vector of a row. Does not belong here: many ids at once over
tables that are being made (`core/arrays/ids.py`).

A look-up is a binary search over the ids in order: the index costs eight bytes an id (sixteen for integers), whatever
the ids' length, and takes microseconds.

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
from dssm_assets.core.retrieval.vectors import matrix_of

Id = int | str

_INT64 = range(-(2**63), 2**63)


class UnknownIdError(InputError):
    """A user or an item that the bundle does not know."""


class IdRows:
    """Row number of an id, -1 for an unknown one."""

    def __init__(self, ids: pa.Array | pa.ChunkedArray, where: str) -> None:
        """Indexes ids in the order in which they come.

        Raises:
            SchemaError: ids that are neither integers nor text, or null.
            DuplicateKeyError: an id occurs more than once.
        """
        self._ids: pa.Array = combine_chunks(comparable_ids(ids, where))
        self.is_integer: bool = pa.types.is_integer(self._ids.type)
        order = pc.sort_indices(self._ids)
        ascending = self._ids.take(order)
        again = pc.sum(pc.equal(ascending.slice(1), ascending.slice(0, max(len(ascending) - 1, 0)))).as_py()
        if again:
            raise DuplicateKeyError(Fault(where, "unique ids", f"{again} that occur again", "keep one row per id"))
        self._order = order.to_numpy()
        self._ascending = ascending.to_numpy() if self.is_integer else None

    def __len__(self) -> int:
        """Returns the number of ids."""
        return len(self._ids)

    def row(self, wanted: Id) -> int:
        """Returns the row of an id in the bundle's type (`parsed`), -1 if it is unknown."""
        if self._ascending is not None:
            place = int(np.searchsorted(self._ascending, wanted))
        else:
            place = bisect.bisect_left(self._order, wanted, key=lambda row: self._ids[int(row)].as_py())
        if place == len(self._order):
            return -1
        row = int(self._order[place])
        return row if self._ids[row].as_py() == wanted else -1

    def ids(self, rows: npt.NDArray[np.int64]) -> list[Id]:
        """Returns the ids of rows, in that order."""
        found: list[Id] = self._ids.take(pa.array(rows)).to_pylist()
        return found

    def is_in_order(self, others: pa.ChunkedArray) -> bool:
        """Tells whether another column holds the same ids in the same rows."""
        same = pa.chunked_array([self._ids]).cast(others.type)
        return bool(same.equals(others))

    def parsed(self, value: Any, where: str) -> Id:
        """Returns an id in the bundle's type: digits become an integer where ids are integers, an integer text where not.

        Raises:
            InputError: if it cannot be one.
        """
        fault = Fault(where, "an integer id" if self.is_integer else "a text id", repr(value)[:80], "correct the id")
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise InputError(fault)
        if not self.is_integer:
            text = str(value)
            if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
                raise InputError(fault)  # half a character, which no table can hold
            return text
        try:
            number = int(value) if isinstance(value, int) or len(value) <= 20 else None
        except ValueError:
            number = None
        if number is None or number not in _INT64:
            raise InputError(fault)
        return number

    def all_parsed(self, values: Sequence[Any], where: str) -> list[Id]:
        """Returns ids in the bundle's type.

        Raises:
            InputError: naming every value that cannot be one.
        """
        parsed, faults = [], []
        for place, value in enumerate(values):
            try:
                parsed.append(self.parsed(value, f"{where}[{place}]"))
            except InputError as error:
                faults += error.faults
        if faults:
            raise InputError(faults)
        return parsed


class VectorRows:
    """Vectors [N, D] of an Arrow column, read where they lie."""

    def __init__(self, column: pa.ChunkedArray, where: str) -> None:
        """Takes a fixed_size_list<float32> column.

        Raises:
            InputError: if it has another type or a missing vector.
        """
        self._chunks = [matrix_of(chunk, where) for chunk in column.chunks if len(chunk)]
        self._starts = np.cumsum([0, *(len(chunk) for chunk in self._chunks)]).tolist()
        self.dims: int = column.type.list_size if pa.types.is_fixed_size_list(column.type) else 0

    def __len__(self) -> int:
        """Returns the number of vectors."""
        return int(self._starts[-1])

    def vector(self, row: int) -> npt.NDArray[np.float32]:
        """Returns the vector of a row, float32 [D], not a copy."""
        chunk = bisect.bisect_right(self._starts, row) - 1
        found: npt.NDArray[np.float32] = self._chunks[chunk][row - self._starts[chunk]]
        return found
