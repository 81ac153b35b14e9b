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

_ROW_BITS = 32


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

    Compared are the values rounded to float32, which keeps their order but for new ties: one sort of whole numbers, several
    times faster than sorting by three keys, and only what ties with the k-th or is better is sorted exactly.
    """
    counts = np.bincount(row, minlength=rows)
    if not (counts > k).any():
        return np.ones(len(row), dtype=bool)
    bits = values.astype(np.float32).view(np.uint32)  # ascending as the values are: none is negative
    keys = (row.astype(np.uint64) << np.uint64(_ROW_BITS)) | (~bits).astype(np.uint64)
    ends = np.cumsum(counts)
    last = np.maximum(np.minimum(ends - counts + k, ends) - 1, 0)  # of the k best of each row
    bars = np.sort(keys)[np.minimum(last, len(keys) - 1)]
    found: NDArray[np.bool_] = keys <= bars[row]
    return found
