"""Integer and text ids: exact look-up of their row numbers, and counts of each."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core.arrays.ragged import IntArray, combine_chunks
from dssm_assets.core.errors import DuplicateKeyError, Fault, InputError, SchemaError
from dssm_assets.core.schema import ID_KINDS, has_repeated, is_id_type

Column: TypeAlias = pa.Array | pa.ChunkedArray
RowNumbers: TypeAlias = npt.NDArray[np.int32]

_SHOWN_IDS = 5
_COMPACT_ROWS = 1 << 20
"""Counts are summed when there are more rows than this, and also twice as many as after the last sum."""


def comparable_ids(ids: Column, where: str) -> pa.ChunkedArray:
    """Returns ids as int64 or string, so that they can be compared. Dictionary-encoded ids are decoded.

    Raises:
        SchemaError: an id is null, or the ids are neither integers nor text, or do not fit int64.
    """
    chunked = ids if isinstance(ids, pa.ChunkedArray) else pa.chunked_array([ids], type=ids.type)
    if pa.types.is_dictionary(ids.type):
        chunked = chunked.cast(ids.type.value_type)  # a null of the dictionary becomes one that is counted
    if not is_id_type(chunked.type) and not pa.types.is_string_view(chunked.type):
        raise SchemaError(Fault(where, ID_KINDS, str(ids.type), "cast the ids in the source"))
    if chunked.null_count:
        got = f"{chunked.null_count} nulls in {len(ids)} rows"
        raise SchemaError(Fault(where, "no null ids", got, "drop those rows in the source"))
    try:
        return chunked.cast(pa.int64() if pa.types.is_integer(chunked.type) else pa.string())
    except pa.ArrowInvalid as error:
        raise SchemaError(Fault(where, "ids that fit int64", str(error), "use text ids")) from error


def cast_ids(ids: pa.Array, wanted: pa.DataType, where: str) -> pa.Array:
    """Casts ids to another type.

    Raises:
        InputError: `ids` are numbers and `wanted` is text, or the other way round, so nothing would ever match.
    """
    if pa.types.is_integer(ids.type) != pa.types.is_integer(wanted):
        raise InputError(Fault(where, f"ids of type {wanted}", str(ids.type), "read all tables from one source"))
    return ids.cast(wanted)


def refuse_type_change(where: str, before: pa.DataType, now: pa.DataType) -> None:
    """Raises a SchemaError if the ids have another type than on the days before."""
    if before != now:
        raise SchemaError(Fault(where, f"{before}, as on the days before", str(now), "write the days of the window again"))


def check_unique(ids: pa.Array, where: str) -> None:
    """Raises an InputError if ids are null. Raises a DuplicateKeyError that names the first repeated ids."""
    if ids.null_count:
        raise InputError(Fault(where, "no missing ids", f"{ids.null_count} nulls", "drop those rows"))
    if pc.count_distinct(ids).as_py() != len(ids):
        raise _duplicate_ids(ids, where)


def sorted_unique(ids: pa.Array) -> pa.Array:
    """Returns the distinct ids in ascending order."""
    unique = pc.unique(ids)
    return unique.take(pc.sort_indices(unique))


def find_positions(ids: pa.Array, values: pa.Array) -> IntArray:
    """Returns the position of each id among the values (int64); -1 if it is not there. For repeated look-ups, `IdIndex` is faster."""
    return np.asarray(pc.fill_null(pc.index_in(ids, value_set=values), -1), np.int64)


def format_ids(ids: pa.Array, rows: Any) -> str:
    """Returns the ids of the first few rows as text for a message."""
    first = [str(ids[int(row)]) for row in rows[:_SHOWN_IDS]]
    return ", ".join(first) + ("" if len(rows) <= _SHOWN_IDS else ", ...")


class IdIndex:
    """Exact index from an id to its row number in `ids`, -1 for unknown ids.

    Example: IdIndex(["b", "a"]).lookup(["a", "c"]) is [1, -1].
    """

    def __init__(self, ids: Column, *, where: str = "ids") -> None:
        """Indexes unique ids, integers or text without nulls, in the given order. See `comparable_ids` for errors."""
        self._where = where
        self.ids: pa.Array = combine_chunks(comparable_ids(ids, where))
        """The ids by row number, int64 or string."""
        if has_repeated(self.ids):
            raise _duplicate_ids(self.ids, where)

    def __len__(self) -> int:
        return len(self.ids)

    def lookup(self, ids: Column, *, where: str = "looked-up ids") -> RowNumbers:
        """Returns the row number of every id, int32, -1 where it is unknown.

        Each distinct id of a dictionary-encoded column is looked up once. A dictionary must not repeat a value; parquet
        files never do.

        Raises:
            SchemaError: the ids are null, or text is looked up among integers or integers among text.
        """
        encoded = ids if isinstance(ids, pa.ChunkedArray) else pa.chunked_array([ids])
        # The values of a dictionary may hold a null too, which null_count does not see.
        has_values = pa.types.is_dictionary(ids.type) and not any(chunk.dictionary.null_count for chunk in encoded.chunks)
        if not has_values or encoded.null_count or not encoded.num_chunks:
            wanted = self._comparable(ids, where)
            if len(wanted) >= len(self.ids):
                return find_positions(wanted, self.ids).astype(np.int32)
            encoded = pa.chunked_array([wanted.dictionary_encode()])
        chunks = encoded.unify_dictionaries().chunks
        distinct = self._comparable(chunks[0].dictionary, where)
        if len(distinct) < len(self.ids):  # hash the shorter side, and look up the longer one in it
            rows = np.full(len(distinct), -1, np.int32)
            positions = pc.index_in(self.ids, value_set=distinct)
            rows[positions.drop_null().to_numpy()] = np.flatnonzero(positions.is_valid())
        else:
            rows = find_positions(distinct, self.ids).astype(np.int32)
        return np.concatenate([rows[chunk.indices.to_numpy()] for chunk in chunks])

    def _comparable(self, ids: Column, where: str) -> pa.Array:
        wanted = combine_chunks(comparable_ids(ids, where))
        if wanted.type != self.ids.type:
            expected = f"{self.ids.type}, the type of {self._where}"
            raise SchemaError(Fault(where, expected, str(wanted.type), "give the same id one type in all sources"))
        return wanted


class IdCounts:
    """Counts the occurrences of each id over several days. `bool()` is False until the first day is added.

    Memory holds about twice the distinct ids, whatever the number of days.
    """

    def __init__(self, where: str) -> None:
        self._where = where
        self._parts: list[pa.Table] = []

    def __bool__(self) -> bool:
        return bool(self._parts)

    def update(self, ids: Column, counts: IntArray | None = None) -> None:
        """Adds the ids of a day. `counts` says how often each occurred; without `counts`, once.

        Raises:
            SchemaError: the ids are not comparable (`comparable_ids`), or have another type than on the days before.
        """
        comparable = combine_chunks(comparable_ids(ids, self._where))
        if self._parts:
            refuse_type_change(self._where, self._parts[0].column("id").type, comparable.type)
        if counts is None:
            counted = pc.value_counts(comparable)
            comparable, counts = counted.field("values"), counted.field("counts").to_numpy()
        self._parts.append(pa.table({"id": comparable, "count": counts}))
        if sum(map(len, self._parts)) > max(2 * len(self._parts[0]), _COMPACT_ROWS):
            self._parts = [self._sum()]

    def total(self) -> tuple[pa.Array, IntArray]:
        """Returns the distinct ids in ascending order and the count of each."""
        table = self._sum().sort_by("id")
        return combine_chunks(table.column("id")), table.column("count").to_numpy()

    def _sum(self) -> pa.Table:
        summed = pa.concat_tables(self._parts).group_by("id", use_threads=False).aggregate([("count", "sum")])
        return summed.select(["id", "count_sum"]).rename_columns(["id", "count"])


def find_repeated(ids: pa.Array) -> pa.Array:
    """Returns the ids that occur more than once, ascending."""
    counts = pc.value_counts(ids)
    again = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")
    return again.take(pc.sort_indices(again))


def _duplicate_ids(ids: pa.Array, where: str) -> DuplicateKeyError:
    again = find_repeated(ids)
    got = f"{len(again)} ids more than once{name_ids(again, where)}"
    return DuplicateKeyError(Fault(where, "unique ids", got, "keep one row per id"))


def name_ids(ids: pa.Array, where: str) -> str:
    """Returns the first ids as text for an error. Returns no user ids, because Dagster stores errors."""
    return "" if "user" in where else f": {format_ids(ids, range(len(ids)))}"
