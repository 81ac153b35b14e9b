"""The best columns of each row of a sparse matrix, under the tie rule of exact search: value descending, then the lower column.

Belongs here: that selection, in memory proportional to the entries. Does not belong here: dense scores (`exact.py`), what the
values are.

Shapes: R rows, E entries, M selected entries, K list length.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dssm_assets.core.retrieval.exclusions import Exclusions, Index

_CELLS = 1 << 20
"""Values that are partitioned at once."""


class BestColumns(NamedTuple):
    """Selected entries of all rows, one after another: best first within a row."""

    lengths: Index
    """int64 [R], selected entries of each row."""
    columns: Index
    """int64 [M]"""
    values: NDArray[np.float64]
    """float64 [M]"""

    def lists(self, k: int) -> Index:
        """Returns int64 [R, K], -1 behind the end of a row."""
        found = np.full((len(self.lengths), k), -1, dtype=np.int64)
        found[np.arange(k) < self.lengths[:, None]] = self.columns
        return found


def best_columns(matrix: Any, k: int, excluded: Exclusions | None = None) -> BestColumns:
    """Returns the k best entries of each row that are above 0.

    Args:
        matrix: scipy csr [R, C] without repeated entries, R below 2^32; not changed.
        k: most entries of a row.
        excluded: columns left out, one row per row of the matrix.
    """
    lengths = np.diff(matrix.indptr)
    row = np.repeat(np.arange(len(lengths)), lengths)
    columns, values = matrix.indices.astype(np.int64), matrix.data.astype(np.float64)
    is_candidate = values > 0
    if excluded is not None:
        width = matrix.shape[1]
        out = np.repeat(np.arange(len(lengths)), excluded.lengths) * width + excluded.indices
        is_candidate &= ~_is_among(row * width + columns, np.sort(out))
    row, columns, values = row[is_candidate], columns[is_candidate], values[is_candidate]
    near = _near_the_top(row, values, len(lengths), k)
    row, columns, values = row[near], columns[near], values[near]
    order = np.lexsort((columns, -values, row))
    row, columns, values = row[order], columns[order], values[order]
    starts = np.searchsorted(row, np.arange(len(lengths)))
    is_kept = np.arange(len(row)) - starts[row] < k
    kept = np.bincount(row[is_kept], minlength=len(lengths))
    return BestColumns(kept, columns[is_kept], values[is_kept])


def _is_among(keys: Index, few: Index) -> NDArray[np.bool_]:
    """Returns bool [E], whether each key is one of a few that are sorted: many times quicker than sorting the many."""
    if not len(few):
        return np.zeros(len(keys), dtype=bool)
    found: NDArray[np.bool_] = few[np.minimum(np.searchsorted(few, keys), len(few) - 1)] == keys
    return found


def _near_the_top(row: Index, values: NDArray[np.float64], rows: int, k: int) -> NDArray[np.bool_]:
    """Returns bool [E]: entries that may be among the k best of their row, all of those that are included.

    Compared are the values rounded to float32, which keeps their order but for new ties: only what ties with the k-th or is
    better is sorted exactly. Rows of about one length are partitioned side by side.

    Args:
        row: int64 [E], ascending.
        values: float64 [E].
        rows: R.
        k: most entries of a row.
    """
    counts = np.bincount(row, minlength=rows)
    bars = np.full(rows, -np.inf, dtype=np.float32)
    single, starts = values.astype(np.float32), np.cumsum(counts) - counts
    powers = np.ceil(np.log2(np.maximum(counts, 1))).astype(np.int64)
    for power in np.unique(powers[counts > k]):
        width = 1 << int(power)
        chosen = np.flatnonzero((powers == power) & (counts > k))
        for first in range(0, len(chosen), max(1, _CELLS // width)):
            block = chosen[first : first + max(1, _CELLS // width)]
            is_entry = np.arange(width) < counts[block, None]
            table = np.zeros((len(block), width), dtype=np.float32)
            table[is_entry] = single[np.repeat(starts[block], counts[block]) + _ranges(counts[block])]
            table.partition(width - k, axis=1)
            bars[block] = table[:, width - k]
    found: NDArray[np.bool_] = single >= bars[row]
    return found


def _ranges(lengths: Index) -> Index:
    """Returns 0 .. length - 1 for each length, one after the other."""
    ends = np.cumsum(lengths)
    return np.arange(int(ends[-1])) - np.repeat(ends - lengths, lengths)
