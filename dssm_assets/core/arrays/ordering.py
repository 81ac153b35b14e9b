"""Sorting and top-k with a fixed rule for ties, so that every machine gives the same order.

Letters: R rows, N values of a row, n values of all rows, K longest result of a row.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dssm_assets.core.arrays.ragged import IntArray, offsets_of, ranges


def sort_with_positions(values: IntArray) -> tuple[IntArray, IntArray]:
    """Sorts values in ascending order, [n], or each row of [R, N]. Returns the sorted values, and the position of each before the sort.

    Equal values keep their order. Value and position are packed into one integer, because integers sort many times faster
    than a stable sort.

    Args:
        values: [n] or [R, N], so small that value and position together fit int64.
    """
    bits = values.shape[-1].bit_length()
    keys = np.left_shift(values, bits, dtype=np.int64)
    keys |= np.arange(values.shape[-1])
    keys.sort()
    return keys >> bits, keys & ((1 << bits) - 1)


def top_k(values: NDArray[np.floating[Any]], k: int, ids: NDArray[np.integer[Any]] | None = None) -> IntArray:
    """Returns the positions of each row's k largest values, int64 [R, K]. A short row ends in -1; values of -inf are skipped.

    Equal values are ordered by their ids, also across the cut at k; without ids by position.

    By hand: [[1, 3, 3, -inf]] with k 4 -> [[1, 2, 0, -1]]; with the ids [[0, 9, 5, 2]] -> [[2, 1, 0, -1]].

    Args:
        values: [R, N], without nan.
        ids: distinct within a row [R, N].
    """
    rows, columns = values.shape
    top, width = np.full((rows, k), -1, np.int64), min(k, columns)
    if not rows or not width:
        return top
    ascending = -values  # not descending: partition would take ten times as long for rows with many -inf
    last = np.partition(ascending, width - 1, axis=1)[:, width - 1, None]
    # K of each row, and entries equal to the last of these.
    row, column = np.nonzero(ascending <= np.minimum(last, np.finfo(values.dtype).max))
    lengths = np.bincount(row, minlength=rows)
    positions, found = pad_rows(lengths, column, -1), pad_rows(lengths, ascending[row, column], np.inf)
    if ids is not None:
        by_id = np.argsort(pad_rows(lengths, ids[row, column].astype(np.int64), np.iinfo(np.int64).max), axis=1)
        positions, found = (np.take_along_axis(one, by_id, 1) for one in (positions, found))
    order = np.argsort(found, axis=1, kind="stable")[:, :k]
    top[:, : order.shape[1]] = np.take_along_axis(positions, order, 1)
    return top


def take_top(entries: NDArray[Any], top: IntArray, missing: float = -1) -> NDArray[Any]:
    """Returns the entries [R, N] at positions from `top_k` [R, K]. Position -1 gives `missing`."""
    if not entries.shape[1]:
        return np.full(top.shape, missing, entries.dtype)
    return np.where(top >= 0, np.take_along_axis(entries, top, 1), entries.dtype.type(missing))


def top_of_rows(lengths: Any, entries: NDArray[np.integer[Any]], values: NDArray[np.float64], k: int) -> IntArray:
    """Returns each row's k entries with the largest values, int64 [R, K]. A short row ends in -1.

    Equal values are ordered by entry.

    By hand: rows of lengths [2, 0, 1], entries [5, 9, 4] with the values [1, 2, 3], k 2 -> [[9, 5], [-1, -1], [4, -1]].

    Args:
        lengths: entries of each row [R].
        entries: one row after the other, distinct within a row [n].
        values: value of each entry; an entry with -inf is skipped [n].
    """
    lengths, starts = np.asarray(lengths), offsets_of(lengths)[:-1]
    top = np.full((len(lengths), k), -1, np.int64)
    size = np.frexp(lengths)[1]  # rows of similar length share a table, because one long row would make it wide for all
    for rows in (np.flatnonzero(size == one) for one in np.unique(size[lengths > 0])):
        cells = ranges(starts[rows], lengths[rows])
        listed, table = pad_rows(lengths[rows], entries[cells], -1), pad_rows(lengths[rows], values[cells], -np.inf)
        top[rows] = take_top(listed, top_k(table, k, listed))
    return top


def pad_rows(lengths: Any, values: NDArray[Any], pad: float) -> NDArray[Any]:
    """Arranges flat values [n] as a table [R, longest row]. Shorter rows end in `pad`."""
    shape = len(lengths), int(np.max(lengths, initial=0))
    if len(values) == shape[0] * shape[1]:
        return values.reshape(shape)
    table = np.full(shape, pad, values.dtype)
    table[np.arange(shape[1]) < np.asarray(lengths)[:, None]] = values
    return table
