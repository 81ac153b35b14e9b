"""Looks up single ids in the memory-mapped tables of a bundle by binary search. Needs 8 bytes of memory per id."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core.arrays.ids import check_unique, comparable_ids, find_positions
from dssm_assets.core.arrays.ragged import IntArray, combine_chunks
from dssm_assets.core.errors import Fault, InputError
from dssm_assets.core.hidden_rows import NOBODY, HiddenRows

Id = int | str
INT64 = range(-(2**63), 2**63)


class UnknownIdError(InputError):
    """The bundle has no such user or item."""

    status: ClassVar[int] = 404


def parse_id(value: Any, where: str, *, is_integer: bool) -> Id:
    """Converts an id to the stored type. If ids are integers, a text of digits becomes an integer. Otherwise ids become text.

    Raises:
        InputError: the value is not an id.
    """
    try:
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise ValueError
        if not is_integer:
            str(value).encode()  # refuses half a surrogate pair, because no table can store it
            return str(value)
        if (isinstance(value, str) and len(value) > 20) or (number := int(value)) not in INT64:
            raise ValueError
        return number
    except ValueError as error:
        expected = "an integer id" if is_integer else "a text id"
        raise InputError(Fault(where, expected, repr(value)[:80], "correct the id")) from error


class IdRows:
    """Looks up the rows of ids in a column."""

    def __init__(self, ids: pa.Array | pa.ChunkedArray, where: str) -> None:
        """Indexes a column. Raises a SchemaError or DuplicateKeyError if values are null, repeated or no ids."""
        self._ids: pa.Array = combine_chunks(comparable_ids(ids, where))
        check_unique(self._ids, where)
        self._order = pc.sort_indices(self._ids).to_numpy()
        self.is_integer: bool = pa.types.is_integer(self._ids.type)
        self._numbers = self._ids.to_numpy() if self.is_integer else None
        self._hidden = NOBODY

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def id_type(self) -> pa.DataType:
        return self._ids.type

    def find_row(self, wanted: Id) -> int:
        """Returns the row of an id in the bundle's type; -1 if the id is unknown."""
        position = bisect.bisect_left(self._order, wanted, key=self._id_at)
        if position == len(self._order):
            return -1
        row = int(self._order[position])
        return row if self._id_at(row) == wanted and not self._hidden.hides(wanted) else -1

    def hide(self, hidden: HiddenRows) -> None:
        """Makes hidden users unknown from now on, for all threads.

        A user is checked when it is requested, because checking all users would take long.
        """
        hidden.hides("")  # called now, because its imports would take a second of a request
        self._hidden = hidden

    def _id_at(self, row: np.uint64 | int) -> Any:
        return self._ids[int(row)].as_py()

    def ids_at(self, rows: IntArray) -> list[Id]:
        """Returns the ids of these rows (0 or above)."""
        # Numbers are read from the NumPy array. After a search has emptied the core's cache, Arrow takes nine times as long (115 us for 200).
        found: list[Id] = self._ids.take(pa.array(rows)).to_pylist() if self._numbers is None else self._numbers[rows].tolist()
        return found

    def rows_of(self, ids: pa.ChunkedArray) -> IntArray:
        """Returns the rows of a column of ids in the bundle's type; -1 for unknown ids."""
        return find_positions(ids, self._ids)

    def is_same_column(self, others: pa.ChunkedArray) -> bool:
        """Returns whether another column has the same ids in the same order."""
        return bool(pa.chunked_array([self._ids]).cast(others.type).equals(others))

    def parse_id(self, value: Any, where: str) -> Id:
        return parse_id(value, where, is_integer=self.is_integer)

    def parse_ids(self, values: Sequence[Any], where: str) -> list[Id]:
        """Converts ids to the bundle's type. Raises an InputError that names all unusable values."""
        parsed, faults = list[Id](), list[Fault]()
        for number, value in enumerate(values):
            try:
                parsed.append(self.parse_id(value, f"{where}[{number}]"))
            except InputError as error:
                faults += error.faults
        InputError.raise_if(faults)
        return parsed
