"""Arrow list columns as flat values plus offsets, and back.

Belongs here: what the operators, the statistics and the bucketizer need to work on the elements of lists without a
loop over rows. Does not belong here: what the elements mean.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat
from numpy.typing import NDArray

from dssm_assets.core.errors import Fault, InputError

Offsets = np.ndarray[Any, np.dtype[np.int64]]
"""Bounds of each row's values in a flat array: R + 1 ascending numbers, the first 0."""


Mask = np.ndarray[Any, np.dtype[np.bool_]]
"""One truth value per element."""


def one_array(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Returns the column as one contiguous array."""
    if not isinstance(column, pa.ChunkedArray):
        return column
    if column.num_chunks == 1:
        return column.chunk(0)
    joined = column.combine_chunks()
    return pa.concat_arrays(joined.chunks) if isinstance(joined, pa.ChunkedArray) else joined


def is_list(arrow_type: pa.DataType) -> bool:
    """Tells whether a column of this type holds lists."""
    return bool(pat.is_list(arrow_type) or pat.is_large_list(arrow_type) or pat.is_fixed_size_list(arrow_type))


def flatten(array: pa.Array) -> tuple[pa.Array, Offsets]:
    """Returns the elements of a list array and their row bounds; a null list has no elements."""
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
    return array.flatten(), offsets_of(lengths)


def offsets_of(lengths: Any) -> Offsets:
    """Returns the row bounds of rows with these lengths."""
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def keep(values: pa.Array, offsets: Offsets, mask: Any) -> tuple[pa.Array, Offsets]:
    """Returns the elements where the mask is true, and their row bounds."""
    if mask.all():
        return values, offsets
    kept_before = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(mask, dtype=np.int64)])
    return values.filter(pa.array(mask)), kept_before[offsets]


def build(values: pa.Array, offsets: Offsets, nulls: Any = None) -> pa.Array:
    """Returns the list array with these elements and row bounds; rows where `nulls` is true are null."""
    mask = None if nulls is None or not nulls.any() else pa.array(nulls)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values, mask=mask)


def row_of_value(offsets: Offsets) -> Any:
    """Returns the row number of each element."""
    return np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))


def ranges(starts: Any, lengths: Any) -> Any:
    """Returns the positions start, start + 1, ... of every range, one range after the other."""
    before = np.cumsum(lengths) - lengths
    return np.repeat(starts - before, lengths) + np.arange(int(lengths.sum()))


def null_mask(array: pa.Array) -> Any:
    """Returns a boolean array that is true where the value is null."""
    return array.is_null().to_numpy(zero_copy_only=False)


def map_leaves(values: pa.Array, change: Callable[[pa.Array], pa.Array]) -> pa.Array:
    """Returns the values with `change` applied to the innermost elements of lists of any depth; nulls stay."""
    if not is_list(values.type):
        return change(values)
    flat, offsets = flatten(values)
    return build(map_leaves(flat, change), offsets, null_mask(values))


def without_nulls(values: pa.Array) -> pa.Array:
    """Returns a list array without the null elements of its innermost lists; a null list becomes an empty one."""
    flat, offsets = flatten(values)
    if is_list(flat.type):
        return build(without_nulls(flat), offsets)
    return build(*keep(flat, offsets, ~null_mask(flat)))


def of_one(values: pa.Array) -> pa.Array:
    """Returns each value as a list of one, a null as an empty list."""
    return build(values.drop_null(), offsets_of(~null_mask(values)))


Index = NDArray[np.int64]


class Exclusions(NamedTuple):
    """Excluded item indices of each user: those of user u are `indices[indptr[u]:indptr[u + 1]]`."""

    indptr: Index
    """int64 [U + 1]"""
    indices: Index
    """int64 [E]"""

    @property
    def lengths(self) -> Index:
        """Returns how many items each user must not see, int64 [U]."""
        return np.diff(self.indptr)

    def take(self, rows: Index) -> Exclusions:
        """Returns the exclusions of the given users, in that order."""
        lengths = self.lengths[rows]
        indptr = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        positions = np.arange(indptr[-1]) + np.repeat(self.indptr[rows] - indptr[:-1], lengths)
        return Exclusions(indptr, self.indices[positions])

    def mask(self, num_items: int) -> NDArray[np.bool_]:
        """Returns bool [U, I], true where the item is excluded. For blocks of users only."""
        mask = np.zeros((len(self.indptr) - 1, num_items), dtype=bool)
        mask[np.repeat(np.arange(len(mask)), self.lengths), self.indices] = True
        return mask


def no_exclusions(num_users: int) -> Exclusions:
    """Returns exclusions that exclude nothing."""
    return Exclusions(np.zeros(num_users + 1, np.int64), np.zeros(0, np.int64))


def check_exclusions(excluded: Exclusions, num_users: int, num_items: int) -> None:
    """Checks that exclusions fit the users and items they are about.

    Raises:
        InputError: naming each misfit: number of users, bounds out of order, item indices outside the corpus.
    """
    faults: list[Fault] = []
    indptr, indices = excluded
    remedy = "build the exclusions over the same users and items as the search"
    if len(indptr) != num_users + 1:
        faults.append(Fault("exclusions, users", f"{num_users}", f"{len(indptr) - 1}", remedy))
    if len(indptr) and (indptr[0] != 0 or indptr[-1] != len(indices) or bool((np.diff(indptr) < 0).any())):
        faults.append(Fault("exclusions, bounds", f"ascending from 0 to {len(indices)}", "other bounds", remedy))
    outside = int(((indices < 0) | (indices >= num_items)).sum())
    if outside:
        got = f"{outside} indices outside"
        faults.append(
            Fault("exclusions, items", f"indices in [0, {num_items})", got, "leave out items that are not in the corpus")
        )
    if faults:
        raise InputError(faults)
