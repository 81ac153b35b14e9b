"""Orders entries by value, equal ones by their place: so the order is the same wherever it is computed.

Letters: R rows, N values of a row, n values of all rows, K longest result of a row.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dssm_assets.core.arrays.ragged import IntArray

_KEY_BITS: Final = 63
_INT32_MAX: Final = 2**31 - 1


def sort_with_places(values: IntArray) -> tuple[IntArray, IntArray]:
    """Returns the values in ascending order and the place of each, equal ones by their place [n] or row by row [R, N].

    Value and place are one number, and numbers are sorted in a fraction of the time of a stable order.

    Args:
        values: so small that value and place together have at most 63 bits and a sign [n] or [R, N].
    """
    bits = values.shape[-1].bit_length()
    keys = np.left_shift(values, bits, dtype=np.int64)
    keys |= np.arange(values.shape[-1])
    keys.sort()
    return keys >> bits, keys & ((1 << bits) - 1)


def order_largest(values: NDArray[np.float64], k: int) -> IntArray:
    """Returns the places of the k largest values of each row, int64 [R, min(K, N)]; those of -inf come last, in any order.

    By hand: [[1, 3, 3, 2]] with k 3 -> [[1, 2, 3]].

    Args:
        values: float64 [R, N], without nan.
    """
    ascending = -values
    order: IntArray = np.argsort(ascending, axis=1)[:, : k + 1]  # not stable, which takes half the time
    best = np.take_along_axis(ascending, order, 1)
    is_tied = ((best[:, 1:] == best[:, :-1]) & np.isfinite(best[:, 1:])).any(axis=1)
    order = order[:, :k]
    if is_tied.any():
        order[is_tied] = np.argsort(ascending[is_tied], axis=1, kind="stable")[:, :k]
    return order


def order_whole(numbers: IntArray, bits: int) -> IntArray:
    """Returns the places of `sort_with_places`, in a stable order where numbers and places have no room together.

    Args:
        numbers: [n] or [R, N], of at most `bits` bits and a sign.
    """
    if bits + numbers.shape[-1].bit_length() > _KEY_BITS:
        return np.argsort(numbers, kind="stable")
    return sort_with_places(numbers)[1]


def falling_numbers(scores: NDArray[np.float32]) -> IntArray:
    """Returns numbers of 31 bits and a sign, int64, the smaller the larger a score is, equal for equal ones; no score is nan."""
    pattern = (0 - scores).view(np.int32)  # of a negative number it falls where the number rises
    return (pattern ^ (pattern >> 31 & _INT32_MAX)).astype(np.int64)


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
