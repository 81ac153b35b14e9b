"""Ids and their positions: the one bridge between the ids of tables and the row indices that scoring computes with.

Belongs here: casting ids to one type, sorting them, finding their position. Does not belong here: what the positions
mean (`truth.py`, `interactions.py`).
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core.errors import DuplicateKeyError, Fault, InputError, SchemaError
from dssm_assets.core.retrieval.exclusions import Index
from dssm_assets.core.samples.sorted_ids import SortedIds
from dssm_assets.core.schema import ID_KINDS


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
