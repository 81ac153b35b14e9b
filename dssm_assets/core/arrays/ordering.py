"""Orders entries by value, equal ones by their position: so the order is the same wherever it is computed.

Letters: R rows, N values of a row, n values of all rows, K longest result of a row.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dssm_assets.core.arrays.ragged import IntArray


def sort_with_places(values: IntArray) -> tuple[IntArray, IntArray]:
    """Returns the values in ascending order and the position of each, equal ones by their position [n] or row by row [R, N].

    Value and position are one number, and numbers are sorted in a fraction of the time of a stable order.

    Args:
        values: so small that value and position together have at most 63 bits and a sign [n] or [R, N].
    """
    bits = values.shape[-1].bit_length()
    keys = np.left_shift(values, bits, dtype=np.int64)
    keys |= np.arange(values.shape[-1])
    keys.sort()
    return keys >> bits, keys & ((1 << bits) - 1)


def order_largest(values: NDArray[np.floating[Any]], k: int) -> IntArray:
    """Returns the positions of the k largest values of each row, int64 [R, min(K, N)]; those of -inf come last, in any order.

    By hand: [[1, 3, 3, 2]] with k 3 -> [[1, 2, 3]].

    Args:
        values: [R, N], without nan.
    """
    ascending, width = -values, min(k + 1, values.shape[1])
    if not width:
        return np.zeros(values.shape, np.int64)
    order: IntArray = np.argpartition(ascending, width - 1, axis=1)[:, :width]
    order = np.take_along_axis(order, np.argsort(np.take_along_axis(ascending, order, 1), axis=1), 1)
    best = np.take_along_axis(ascending, order, 1)
    is_tied = ((best[:, 1:] == best[:, :-1]) & (best[:, 1:] < np.inf)).any(axis=1)
    order = order[:, :k]
    if is_tied.any():
        order[is_tied] = np.argsort(ascending[is_tied], axis=1, kind="stable")[:, :k]
    return order


def list_largest(lengths: Any, entries: IntArray, values: NDArray[np.float64], k: int) -> IntArray:
    """Returns the entries of each row by value, at most k, int64 [R, min(K, longest row)]; -1 after the last.

    By hand: rows of lengths [2, 0, 1], entries [5, 9, 4] with the values [1, 2, 3] -> [[9, 5], [-1, -1], [4, -1]].

    Args:
        lengths: entries of each row [R].
        entries: int64 [n], one row after the other.
        values: float64 [n].
    """
    shape = len(lengths), int(np.max(lengths, initial=0))
    is_entry = np.arange(shape[1]) < np.asarray(lengths)[:, None]
    table, listed = np.full(shape, -np.inf), np.full(shape, -1, np.int64)
    table[is_entry], listed[is_entry] = values, entries
    return np.take_along_axis(listed, order_largest(table, k), 1)


def find_best(columns: NDArray[Any], scores: NDArray[np.floating[Any]], k: int) -> IntArray:
    """Returns the positions of the k highest scores above 0, best first, equal scores by column, int64 [at most K].

    By hand: columns [7, 2, 5] with the scores [1, 1, 0] and k 2 -> [1, 0].

    Args:
        columns: distinct [N].
        scores: [N], without nan.
    """
    is_best = scores > 0
    if len(scores) > k:
        is_best &= scores >= np.partition(scores, len(scores) - k)[len(scores) - k]
    best = np.flatnonzero(is_best)
    return best[np.lexsort((columns[best], -scores[best]))[:k]]
