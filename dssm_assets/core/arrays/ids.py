"""From ids to row numbers, exactly, for integer and text ids.

Belongs here: the one form in which ids are compared and the index over them. Does not belong here: row numbers of
features (embedding indices), which come from the feature configuration.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core.arrays.ragged import Index
from dssm_assets.core.errors import DuplicateKeyError, Fault, InputError, SchemaError
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


_BLOCK_ROWS = 1 << 20


class SortedIds:
    """Exact index over ascending ids: id -> its row number, -1 for an id that is not among them."""

    def __init__(self, ids: Column, *, where: str = "ids") -> None:
        """Checks the order, block by block.

        Args:
            ids: integers or text, ascending, without nulls; of one chunk, or they are copied.
            where: what the ids are, for error messages.

        Raises:
            SchemaError: see `comparable_ids`; or an id is not above the one before it.
        """
        self._where = where
        comparable = comparable_ids(ids, where)
        self._ids: pa.Array = comparable.chunk(0) if comparable.num_chunks == 1 else one_array(comparable)
        for begin in range(0, len(self._ids) - 1, _BLOCK_ROWS):
            here = self._ids.slice(begin, _BLOCK_ROWS + 1)
            if not pc.all(pc.less(here.slice(0, len(here) - 1), here.slice(1))).as_py():
                got = f"an id that is not, in rows {begin} .. {begin + len(here) - 1}"
                raise SchemaError(Fault(where, "ids each above the one before it", got, "write the table again"))

    def lookup(self, ids: Column, *, where: str = "looked-up ids") -> npt.NDArray[np.int64]:
        """Returns the row number of every id, int64, -1 where it is unknown.

        Raises:
            SchemaError: the ids are null, or text is looked up among integers or integers among text.
        """
        wanted = one_array(comparable_ids(ids, where))
        if wanted.type != self._ids.type:
            expected = f"{self._ids.type}, the type of {self._where}"
            raise SchemaError(Fault(where, expected, str(wanted.type), "give the same id one type in all sources"))
        if not len(self._ids):
            return np.full(len(wanted), -1, np.int64)
        rows = np.minimum(self._first_not_below(wanted), len(self._ids) - 1)
        is_found = pc.equal(self._ids.take(pa.array(rows)), wanted).to_numpy(zero_copy_only=False)
        return np.where(is_found, rows, np.int64(-1))

    def _first_not_below(self, wanted: pa.Array) -> npt.NDArray[np.int64]:
        if pa.types.is_integer(wanted.type):
            return np.asarray(np.searchsorted(self._ids.to_numpy(), wanted.to_numpy()), np.int64)
        low, high = np.zeros(len(wanted), np.int64), np.full(len(wanted), len(self._ids), np.int64)
        while len(still := np.flatnonzero(low < high)):
            middle = (low[still] + high[still]) // 2
            found = pc.less(self._ids.take(pa.array(middle)), wanted.take(pa.array(still)))
            is_below = found.to_numpy(zero_copy_only=False)
            low[still[is_below]] = middle[is_below] + 1
            high[still[~is_below]] = middle[~is_below]
        return low


def rows_of(index: IdIndex, ids: Column, *, where: str) -> npt.NDArray[np.int32]:
    """Returns what `index.lookup` does, also of a dictionary-encoded column, of which each distinct id is looked up once.

    The dictionaries must be such as parquet files have: no value comes twice in one.

    Raises:
        SchemaError: as `IdIndex.lookup`.
    """
    if not pa.types.is_dictionary(ids.type):
        return index.lookup(ids, where=where)
    encoded = ids if isinstance(ids, pa.ChunkedArray) else pa.chunked_array([ids])
    # A null may stand in the dictionary's values too, which null_count does not see.
    has_null = encoded.null_count > 0 or any(chunk.dictionary.null_count for chunk in encoded.chunks)
    if has_null or not encoded.num_chunks:
        return index.lookup(encoded.cast(ids.type.value_type), where=where)
    chunks = encoded.unify_dictionaries().chunks
    distinct = chunks[0].dictionary
    is_few = len(distinct) < len(index) and distinct.type == index.ids.type
    rows = _rows_of_few(index.ids, distinct) if is_few else index.lookup(distinct, where=where)
    found: npt.NDArray[np.int32] = np.concatenate([rows[chunk.indices.to_numpy()] for chunk in chunks])
    return found


def _rows_of_few(ids: pa.Array, distinct: pa.Array) -> npt.NDArray[np.int32]:
    """Returns the row of each distinct id: the fewer ones are hashed, the many are looked up among them."""
    places = pc.index_in(ids, value_set=distinct)
    found = np.flatnonzero(places.is_valid())
    rows = np.full(len(distinct), -1, np.int32)
    rows[places.drop_null().to_numpy()] = found
    return rows


def flat(ids: pa.ChunkedArray | pa.Array) -> pa.Array:
    """Returns the ids as one contiguous array."""
    return ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids


def cast_ids(ids: pa.Array, wanted: pa.DataType, where: str) -> pa.Array:
    """Returns the ids in the wanted type.

    Raises:
        InputError: if one side holds numbers and the other text, which would silently match nothing.
    """
    if pa.types.is_integer(ids.type) != pa.types.is_integer(wanted):
        raise InputError(Fault(where, f"ids of type {wanted}", str(ids.type), "read all tables from one source"))
    return ids.cast(wanted)


def sorted_unique(ids: pa.Array) -> pa.Array:
    """Returns the distinct ids in ascending order."""
    unique = pc.unique(ids)
    return unique.take(pc.sort_indices(unique))


def positions(ids: pa.Array, values: pa.Array) -> Index:
    """Returns, for each id, its position among the values (int64), -1 where it is not among them."""
    found: Any = pc.fill_null(pc.index_in(ids, value_set=values), -1)
    result: Index = found.to_numpy(zero_copy_only=False).astype(np.int64)
    return result


class IdPlaces:
    """Positions among the same values again and again: a few ids are found without going through all values each time."""

    def __init__(self, values: pa.ChunkedArray | pa.Array) -> None:
        """Takes the values, distinct, in any order."""
        self.values = flat(values)

    def of(self, ids: pa.Array) -> Index:
        """Returns what `positions` does."""
        if len(ids) >= len(self.values):
            return positions(ids, self.values)
        order, index = self._sorted
        rows = index.lookup(ids)
        return np.where(rows >= 0, order[rows], np.int64(-1))

    @cached_property
    def _sorted(self) -> tuple[Index, SortedIds]:
        order = pc.sort_indices(self.values)
        return order.to_numpy().astype(np.int64), SortedIds(self.values.take(order))


def check_unique(ids: pa.Array, where: str) -> None:
    """Checks that ids are distinct and none is missing.

    Raises:
        InputError: if ids are missing.
        DuplicateKeyError: naming the first ids that occur more than once.
    """
    if ids.null_count:
        raise InputError(Fault(where, "no missing ids", f"{ids.null_count} nulls", "drop those rows"))
    counted = pc.value_counts(ids)
    repeated = counted.filter(pc.greater(counted.field("counts"), 1)).field("values")
    if len(repeated):
        first = ", ".join(str(value) for value in repeated.take(pc.sort_indices(repeated))[:5].to_pylist())
        raise DuplicateKeyError(
            Fault(where, "each id once", f"{len(repeated)} ids more than once: {first}", "write one row per id")
        )


def plain_ids(column: pa.ChunkedArray | pa.Array, where: str) -> pa.Array:
    """Returns ids as int64 or string, whatever widths and encodings a file gave them.

    Raises:
        SchemaError: if they are neither whole numbers nor text, or some are missing.
    """
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_integer(kind):
        wanted = pa.int64()
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        wanted = pa.string()
    else:
        raise SchemaError(Fault(where, ID_KINDS, str(column.type), "cast the column"))
    if column.null_count:
        got = f"{column.null_count} nulls in {len(column)} rows"
        raise SchemaError(Fault(where, "no missing ids", got, "drop those rows"))
    try:
        return flat(column.cast(wanted))
    except pa.ArrowInvalid as error:
        raise SchemaError(
            Fault(where, f"ids that fit {wanted}", str(error), "number them anew, or write them as text")
        ) from error


def shown(ids: pa.Array, rows: Any, limit: int = 5) -> str:
    """Returns the first ids of the given rows, for messages."""
    first = [str(ids[int(row)]) for row in rows[:limit]]
    return ", ".join(first) + ("" if len(rows) <= limit else ", ...")
