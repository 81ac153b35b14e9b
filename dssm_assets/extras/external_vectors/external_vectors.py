"""Vectors and pairs that a user brings, read from tables and checked.

Shapes: N ids, V vectors, D vector dimension.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from dssm_assets.core.arrays.ids import check_unique, comparable_ids, format_ids
from dssm_assets.core.arrays.ragged import IntArray, combine_chunks, is_list, list_lengths, offsets_of, ranges
from dssm_assets.core.columns import ITEM_ID, USER_ID
from dssm_assets.core.errors import Fault, InputError, SchemaError
from dssm_assets.core.retrieval.vectors import Vectors, vector_faults
from dssm_assets.core.samples.sample_tables import require_columns

VECTOR = "vector"
_FORM = "list, large_list or fixed_size_list of numbers"


@dataclass(frozen=True)
class VectorSet:
    """Distinct ids, each with at least one usable vector."""

    ids: pa.Array
    """[N]"""
    vectors: Vectors
    """float32 [V, D], grouped by id."""
    bounds: IntArray
    """int64 [N + 1]: those of id n are rows bounds[n] .. bounds[n + 1] - 1."""

    def select(self, rows: IntArray) -> tuple[Vectors, IntArray]:
        """Returns the vectors of the given ids and their bounds."""
        counts = np.diff(self.bounds)[rows]
        return self.vectors[ranges(self.bounds[rows], counts)], offsets_of(counts)


def read_vectors(table: pa.Table, id_column: str, where: str, *, allows_multi_interest: bool) -> VectorSet:
    """Returns the vectors of a table with an id column and a column `vector`.

    Args:
        table: one row per id; `vector` a list of numbers, or a list of such lists where an id may have several.
        id_column: user_id or item_id.

    Raises:
        InputError: a column is missing, ids are missing or repeated, vectors are missing, of different widths, not finite or all
            zeros; the first ids are named.
    """
    require_columns(where, table.column_names, (id_column, VECTOR))
    if not table.num_rows:
        raise InputError(Fault(where, "at least one row", "none", "write the vectors first"))
    ids = combine_chunks(comparable_ids(table.column(id_column), f"{where}, column {id_column}"))
    check_unique(ids, f"{where}, column {id_column}")
    side = id_column.removesuffix("_id")
    return VectorSet(ids, *_read_matrix(table.column(VECTOR), ids, f"{where}, column {VECTOR}", side, allows_multi_interest))


def read_pairs(table: pa.Table, where: str) -> pa.Table:
    """Returns the distinct pairs user_id, item_id of a table, ids as int64 or string.

    Raises:
        SchemaError: a missing column, ids that are missing or of a wrong type.
    """
    require_columns(where, table.column_names, (USER_ID, ITEM_ID))
    columns = {name: comparable_ids(table.column(name), f"{where}, column {name}") for name in (USER_ID, ITEM_ID)}
    return pa.table(columns).group_by([USER_ID, ITEM_ID], use_threads=False).aggregate([])


def _read_matrix(
    column: pa.ChunkedArray, ids: pa.Array, where: str, side: str, allows_multi_interest: bool
) -> tuple[Vectors, IntArray]:
    inner = column.type.value_type if is_list(column.type) else None
    is_nested = inner is not None and is_list(inner)
    numbers = inner.value_type if inner is not None and is_nested else inner
    if numbers is None or not _is_number(numbers) or (is_nested and not allows_multi_interest):
        expected = f"{_FORM}, or a list of those" if allows_multi_interest else _FORM
        raise SchemaError(Fault(where, expected, str(column.type), "write each vector as a list of numbers"))
    parts = list(_parts(column, is_nested))
    counts, owner, widths, values, holes = (np.concatenate([part[place] for part in parts]) for place in range(5))
    InputError.raise_if(_shape_faults(counts, owner, widths, holes, ids, where))
    matrix = values.reshape(len(owner), int(widths[0]))
    InputError.raise_if(vector_faults(side, matrix, ids.take(pa.array(owner))))
    return matrix, offsets_of(counts)


def _parts(column: pa.ChunkedArray, is_nested: bool) -> Iterator[tuple[Any, ...]]:
    """Yields per chunk: number of vectors of each row, row of each vector, width of each, their numbers, rows with a null."""
    start = 0
    for chunk in column.chunks:
        rows = np.arange(start, start + len(chunk))
        start += len(chunk)
        if is_nested:
            counts, vectors = list_lengths(chunk), chunk.flatten()
        else:
            present = pc.is_valid(chunk)
            counts, vectors = present.cast(pa.int64()).to_numpy(zero_copy_only=False), chunk.filter(present)
        owner = np.repeat(rows, counts)
        widths = list_lengths(vectors)
        flat = vectors.flatten()
        holes = np.concatenate([owner[_nulls(vectors)], np.repeat(owner, widths)[_nulls(flat)]])
        numbers = pc.cast(flat, pa.float32(), safe=False).to_numpy(zero_copy_only=False)
        yield counts, owner, widths, np.asarray(numbers, np.float32), holes


def _shape_faults(
    counts: IntArray, owner: IntArray, widths: IntArray, holes: IntArray, ids: pa.Array, where: str
) -> Iterator[Fault]:
    empty = np.flatnonzero(counts == 0)
    if len(empty):
        yield _fault(where, "a vector in every row", f"{len(empty)} of {len(ids)} without: {format_ids(ids, empty)}")
    with_nulls = np.unique(holes)
    if len(with_nulls):
        got = f"{len(with_nulls)} of {len(ids)} rows with nulls: {format_ids(ids, with_nulls)}"
        yield _fault(where, "no missing numbers in a vector", got)
    is_complete = ~np.isin(owner, with_nulls)
    if is_complete.any():
        common = int(np.bincount(widths[is_complete]).argmax())
        other = np.unique(owner[is_complete & (widths != common)])
        if len(other):
            got = f"{len(other)} of {len(ids)} of other widths: {format_ids(ids, other)}"
            yield _fault(where, f"vectors of one width, mostly {common}", got)
        elif common == 0:
            yield _fault(where, "vectors of at least one number", "empty ones")


def _fault(where: str, expected: str, got: str) -> Fault:
    return Fault(where, expected, got, "write these vectors again, or drop these ids")


def _nulls(array: Any) -> Any:
    return pc.is_null(array).to_numpy(zero_copy_only=False)


def _is_number(kind: pa.DataType) -> bool:
    return bool(pat.is_floating(kind) or pat.is_integer(kind) or pat.is_decimal(kind))
