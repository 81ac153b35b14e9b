"""Vectors and pairs of anybody's making, read from tables and checked.

Belongs here: what a table of vectors or of pairs must hold to be evaluated. Does not belong here: files (`storage/`), the
evaluation (`vector_evaluation.py`).

Shapes: N ids, V vectors of all ids, D vector dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from dssm_assets.core.columns import ITEM_ID, USER_ID
from dssm_assets.core.errors import Fault, InputError, SchemaError
from dssm_assets.core.evaluation.ids import check_unique, plain_ids, shown
from dssm_assets.core.retrieval.exclusions import Index
from dssm_assets.core.retrieval.vectors import Vectors, vector_faults

VECTOR = "vector"
_Value = TypeVar("_Value")
_FORM = "list, large_list or fixed_size_list of numbers"


@dataclass(frozen=True)
class VectorSet:
    """Distinct ids, each with at least one usable vector."""

    ids: pa.Array
    """[N]"""
    vectors: Vectors
    """float32 [V, D], grouped by id."""
    bounds: Index
    """int64 [N + 1]: those of id n are rows bounds[n] .. bounds[n + 1] - 1."""

    def take(self, rows: Index) -> tuple[Vectors, Index]:
        """Returns the vectors of the given ids and their bounds."""
        counts = np.diff(self.bounds)[rows]
        bounds = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
        places = np.arange(bounds[-1]) + np.repeat(self.bounds[rows] - bounds[:-1], counts)
        return self.vectors[places], bounds


class Faults:
    """Gathers what is wrong in several places, so that all of it is told at once."""

    def __init__(self) -> None:
        self.found: list[Fault] = []

    def of(self, work: Callable[[], _Value]) -> _Value | None:
        """Returns what the work returns; None if its input was bad, which is kept."""
        try:
            return work()
        except InputError as error:
            self.found += error.faults
            return None

    def raise_any(self) -> None:
        """Raises what was gathered, if anything was.

        Raises:
            InputError: with every fault.
        """
        if self.found:
            raise InputError(self.found)


def read_vectors(table: pa.Table, id_column: str, where: str, *, may_have_several: bool) -> VectorSet:
    """Returns the vectors of a table with an id column and a column `vector`.

    Args:
        table: one row per id; `vector` a list of numbers, or a list of such lists where an id may have several.
        id_column: user_id or item_id.
        where: what to call the table in errors.
        may_have_several: an id may have several vectors.

    Raises:
        InputError: with every fault: a missing column, ids that are missing or repeated, vectors that are missing, of
            different widths, not finite or all zeros; the first ids are named.
    """
    lacking = [name for name in (id_column, VECTOR) if name not in table.column_names]
    if lacking:
        came = ", ".join(table.column_names) or "no columns"
        raise SchemaError(
            [Fault(f"{where}, column {name}", "the column to exist", came, "rename or add it") for name in lacking]
        )
    if not table.num_rows:
        raise InputError(Fault(where, "at least one row", "none", "write the vectors first"))
    faults = Faults()
    ids = faults.of(lambda: plain_ids(table.column(id_column), f"{where}, column {id_column}"))
    if ids is not None:
        faults.of(lambda: check_unique(ids, f"{where}, column {id_column}"))
    names = pa.array(np.arange(1, table.num_rows + 1)).cast(pa.string()) if ids is None else ids
    column = f"{where}, column {VECTOR}"
    side = id_column.removesuffix("_id")
    read = faults.of(lambda: _matrix(table.column(VECTOR), names, column, side, may_have_several))
    if ids is None or read is None or faults.found:
        raise InputError(faults.found)
    return VectorSet(ids, *read)


def read_pairs(table: pa.Table, where: str) -> pa.Table:
    """Returns the distinct pairs user_id, item_id of a table, ids as int64 or string.

    Raises:
        InputError: with every fault: a missing column, ids that are missing or of a wrong type.
    """
    faults = Faults()
    columns = {}
    for name in (USER_ID, ITEM_ID):
        place = f"{where}, column {name}"
        if name not in table.column_names:
            came = ", ".join(table.column_names) or "no columns"
            faults.found.append(Fault(place, "the column to exist", came, "rename or add it"))
        else:
            columns[name] = faults.of(lambda name=name, place=place: plain_ids(table.column(name), place))  # type: ignore[misc]
    faults.raise_any()
    return pa.table(columns).group_by([USER_ID, ITEM_ID], use_threads=False).aggregate([])


def _matrix(column: pa.ChunkedArray, ids: pa.Array, where: str, side: str, may_have_several: bool) -> tuple[Vectors, Index]:
    inner = column.type.value_type if _is_list(column.type) else None
    is_nested = inner is not None and _is_list(inner)
    numbers = inner.value_type if inner is not None and is_nested else inner
    if numbers is None or not _is_number(numbers) or (is_nested and not may_have_several):
        expected = f"{_FORM}, or a list of those" if may_have_several else _FORM
        raise SchemaError(Fault(where, expected, str(column.type), "write each vector as a list of numbers"))
    parts = list(_parts(column, is_nested))
    counts, owner, widths, values, holes = (np.concatenate([part[place] for part in parts]) for place in range(5))
    faults = [*_shape_faults(counts, owner, widths, holes, ids, where)]
    if faults:
        raise InputError(faults)
    matrix = values.reshape(len(owner), int(widths[0]))
    found = vector_faults(side, matrix, _Owned(ids, owner))
    if found:
        raise InputError(found)
    return matrix, np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])


def _parts(column: pa.ChunkedArray, is_nested: bool) -> Iterator[tuple[Any, ...]]:
    """Yields per chunk: vectors of each row, row of each vector, width of each, their numbers, rows with a null inside."""
    start = 0
    for chunk in column.chunks:
        rows = np.arange(start, start + len(chunk))
        start += len(chunk)
        if is_nested:
            counts, vectors = _lengths(chunk), chunk.flatten()
        else:
            present = pc.is_valid(chunk)
            counts, vectors = present.cast(pa.int64()).to_numpy(zero_copy_only=False), chunk.filter(present)
        owner = np.repeat(rows, counts)
        widths = _lengths(vectors)
        flat = vectors.flatten()
        holes = np.concatenate([owner[_nulls(vectors)], np.repeat(owner, widths)[_nulls(flat)]])
        numbers = pc.cast(flat, pa.float32(), safe=False).to_numpy(zero_copy_only=False)
        yield counts, owner, widths, np.asarray(numbers, np.float32), holes


def _shape_faults(counts: Index, owner: Index, widths: Index, holes: Index, ids: pa.Array, where: str) -> Iterator[Fault]:
    none = np.flatnonzero(counts == 0)
    if len(none):
        yield _fault(where, "a vector in every row", f"{len(none)} of {len(ids)} without: {shown(ids, none)}")
    hollow = np.unique(holes)
    if len(hollow):
        got = f"{len(hollow)} of {len(ids)} rows with nulls: {shown(ids, hollow)}"
        yield _fault(where, "no missing numbers in a vector", got)
    sound = ~np.isin(owner, hollow)
    if sound.any():
        common = int(np.bincount(widths[sound]).argmax())
        other = np.unique(owner[sound & (widths != common)])
        if len(other):
            got = f"{len(other)} of {len(ids)} of other widths: {shown(ids, other)}"
            yield _fault(where, f"vectors of one width, mostly {common}", got)
        elif common == 0:
            yield _fault(where, "vectors of at least one number", "empty ones")


def _fault(where: str, expected: str, got: str) -> Fault:
    return Fault(where, expected, got, "write these vectors anew, or drop these ids")


def _lengths(array: Any) -> Index:
    lengths: Index = pc.fill_null(pc.list_value_length(array), 0).cast(pa.int64()).to_numpy(zero_copy_only=False)
    return lengths


def _nulls(array: Any) -> Any:
    return pc.is_null(array).to_numpy(zero_copy_only=False)


def _is_list(kind: pa.DataType) -> bool:
    return bool(pat.is_list(kind) or pat.is_large_list(kind) or pat.is_fixed_size_list(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pat.is_floating(kind) or pat.is_integer(kind) or pat.is_decimal(kind))


class _Owned:
    """Ids, looked up by the rows of their vectors."""

    def __init__(self, ids: pa.Array, owner: Index) -> None:
        self._ids, self._owner = ids, owner

    def __getitem__(self, row: int) -> Any:
        return self._ids[int(self._owner[row])]
