"""From ids to row numbers, exactly, for integer and text ids.

Belongs here: the one form in which ids are compared and the index over them. Does not belong here: row numbers of
features (embedding indices), which come from the feature configuration.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core.errors import DuplicateKeyError, Fault, SchemaError
from dssm_assets.core.schema import ID_KINDS, has_repeated, is_id_type

Column: TypeAlias = pa.Array | pa.ChunkedArray
_SHOWN = 5
_SPREAD, _SMALL = 8, 1 << 16
"""An array of places may have so many per id, or be so long at least."""


def comparable_ids(ids: Column, where: str) -> pa.ChunkedArray:
    """Returns ids without nulls as int64 or string, the two forms in which ids are compared.

    Raises:
        SchemaError: ids that are neither integers nor text, that do not fit int64, or that are null.
    """
    if not is_id_type(ids.type):
        raise SchemaError(Fault(where, ID_KINDS, str(ids.type), "cast the ids in the source"))
    if ids.null_count:
        raise SchemaError(
            Fault(where, "no null ids", f"{ids.null_count} nulls in {len(ids)} rows", "drop those rows in the source")
        )
    chunked = ids if isinstance(ids, pa.ChunkedArray) else pa.chunked_array([ids], type=ids.type)
    try:
        return chunked.cast(pa.int64() if pa.types.is_integer(ids.type) else pa.string())
    except pa.ArrowInvalid as error:
        raise SchemaError(Fault(where, "ids that fit int64", str(error), "use text ids")) from error


def one_array(column: Column) -> pa.Array:
    """Returns a column as a single array, whatever the number of its chunks."""
    if isinstance(column, pa.Array):
        return column
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], type=column.type)


def refuse_type_change(where: str, before: pa.DataType, now: pa.DataType) -> None:
    """Checks that ids have the type that they had on the days before.

    Raises:
        SchemaError: they have not.
    """
    if before != now:
        raise SchemaError(Fault(where, f"{before}, as on the days before", str(now), "write the days of the window again"))


class IdIndex:
    """Exact index: id -> its row number in `ids`, -1 for an id that is not among them.

    Example: IdIndex(["b", "a"]).lookup(["a", "c"]) is [1, -1].
    """

    def __init__(self, ids: Column, *, where: str = "ids") -> None:
        """Indexes ids in the order in which they come.

        Args:
            ids: integers or text, unique, without nulls.
            where: what the ids are, for error messages.

        Raises:
            SchemaError: see `comparable_ids`.
            DuplicateKeyError: an id occurs more than once.
        """
        self._where = where
        self._ids: pa.Array = one_array(comparable_ids(ids, where))
        self._places = _Places.of(self._ids)
        if has_repeated(self._ids) if self._places is None else self._places.count != len(self._ids):
            raise DuplicateKeyError(Fault(where, "unique ids", _duplicates(self._ids), "keep one row per id"))

    def __len__(self) -> int:
        """Returns the number of ids."""
        return len(self._ids)

    @property
    def ids(self) -> pa.Array:
        """The ids by row number, int64 or string."""
        return self._ids

    def lookup(self, ids: Column, *, where: str = "looked-up ids") -> npt.NDArray[np.int32]:
        """Returns the row number of every id, int32, -1 where it is unknown.

        Raises:
            SchemaError: the ids are null, or text is looked up among integers or integers among text.
        """
        wanted = comparable_ids(ids, where)
        if wanted.type != self._ids.type:
            got = f"{wanted.type}"
            raise SchemaError(
                Fault(where, f"{self._ids.type}, the type of {self._where}", got, "give the same id one type in all sources")
            )
        if self._places is not None:
            return self._places.find(np.asarray(wanted.to_numpy(), np.int64))
        found = pc.fill_null(pc.index_in(wanted, value_set=self._ids), pa.scalar(-1, pa.int32()))
        return np.asarray(found.to_numpy(), dtype=np.int32)


@dataclass(frozen=True)
class _Places:
    """Row numbers of integer ids that lie close together, by id: a look-up is an index into this array."""

    first: int
    rows: npt.NDArray[np.int32]

    @classmethod
    def of(cls, ids: pa.Array) -> _Places | None:
        """Returns the places, None for text and for ids so far apart that most places would be empty."""
        if not len(ids) or not pa.types.is_integer(ids.type):
            return None
        numbers = ids.to_numpy()
        first, last = int(numbers.min()), int(numbers.max())
        if last - first >= max(_SPREAD * len(ids), _SMALL):
            return None
        rows = np.full(last - first + 1, -1, np.int32)
        rows[numbers - first] = np.arange(len(ids), dtype=np.int32)
        return cls(first, rows)

    @property
    def count(self) -> int:
        """Returns how many distinct ids there are."""
        return int(np.count_nonzero(self.rows >= 0))

    def find(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
        """Returns the row number of each id, -1 where there is none."""
        is_inside = (ids >= self.first) & (ids <= self.first + len(self.rows) - 1)
        return np.where(is_inside, self.rows[np.where(is_inside, ids - self.first, 0)], np.int32(-1))


def _duplicates(ids: pa.Array) -> str:
    counts = pc.value_counts(ids)
    again = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")
    shown = ", ".join(repr(value) for value in again.take(pc.sort_indices(again))[:_SHOWN].to_pylist())
    return f"{len(again)} ids more than once, first {shown}"
