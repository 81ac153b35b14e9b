"""Vectors and pairs that a user brings, read from tables and checked.

Shapes: N ids, V vectors, D vector dimension.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from dssm_assets.core.arrays.ids import check_unique, comparable_ids, format_ids
from dssm_assets.core.arrays.ragged import IntArray, combine_chunks, is_list, list_lengths, offsets_of, ranges, repeat_rows
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

    Raises:
        InputError: columns, ids or vectors are missing, ids are repeated, vectors differ in width, are not finite or all zeros.
    """
    require_columns(where, table.column_names, (id_column, VECTOR))
    if not table.num_rows:
        raise InputError(Fault(where, "at least one row", "none", "write the vectors first"))
    ids = combine_chunks(comparable_ids(table.column(id_column), f"{where}, column {id_column}"))
    check_unique(ids, f"{where}, column {id_column}")
    side = id_column.removesuffix("_id")
    return VectorSet(ids, *_read_matrix(table.column(VECTOR), ids, f"{where}, column {VECTOR}", side, allows_multi_interest))


def read_pairs(table: pa.Table, where: str) -> pa.Table:
    """Returns the distinct pairs user_id, item_id of a table, ids as int64 or string."""
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
    vector = pa.large_list(pa.float32())  # 64-bit offsets: all users may have more than 2 ** 31 numbers
    rows = combine_chunks(column.cast(pa.large_list(vector) if is_nested else vector, safe=False))
    counts = list_lengths(rows) if is_nested else np.asarray(rows.is_valid()).astype(np.int64)
    vectors = rows.flatten() if is_nested else rows.drop_null()
    owner, widths, numbers = repeat_rows(counts), list_lengths(vectors), vectors.flatten()
    of_null = np.searchsorted(offsets_of(widths), pc.indices_nonzero(numbers.is_null()).to_numpy(), side="right") - 1
    holes = owner[np.union1d(pc.indices_nonzero(vectors.is_null()).to_numpy(), of_null).astype(np.int64)]
    InputError.raise_if(_shape_faults(counts, owner, widths, np.unique(holes), ids, where))
    matrix = numbers.to_numpy(zero_copy_only=False).reshape(len(owner), int(widths[0]))
    InputError.raise_if(vector_faults(side, matrix, ids.take(pa.array(owner))))
    return matrix, offsets_of(counts)


def _shape_faults(
    counts: IntArray, owner: IntArray, widths: IntArray, with_nulls: IntArray, ids: pa.Array, where: str
) -> Iterator[Fault]:
    empty = np.flatnonzero(counts == 0)
    if len(empty):
        yield _fault(where, "a vector in every row", f"{len(empty)} of {len(ids)} without: {format_ids(ids, empty)}")
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


def _is_number(kind: pa.DataType) -> bool:
    return bool(pat.is_floating(kind) or pat.is_integer(kind) or pat.is_decimal(kind))
