"""Which negatives do not count for which row, as (row, column) pairs instead of a matrix.

Belongs here: finding the pairs. Does not belong here: the logits they are taken out of.

Letters: B rows, C columns, P pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dssm_assets.core.models.bags import IntArray, ragged_positions


@dataclass(frozen=True)
class MaskedPairs:
    """Cells of the logits [B, C] that do not count, sorted by row; a cell may be named twice."""

    rows: IntArray  # [P]
    columns: IntArray  # [P]


def matching_pairs(rows: IntArray, items: IntArray, column_items: IntArray) -> MaskedPairs:
    """Returns every (row, column) such that the column's item is one of the row's items.

    Args:
        rows: row of each entry, ascending.
        items: item index of each entry.
        column_items: item index of each column [C].
    """
    order = np.argsort(column_items, kind="stable")
    ordered = column_items[order]
    first = np.searchsorted(ordered, items, side="left")
    last = np.searchsorted(ordered, items, side="right")
    positions, _ = ragged_positions(first, last)
    return MaskedPairs(np.repeat(rows, last - first), order[positions])


def diagonal_pairs(count: int) -> MaskedPairs:
    """Returns the cells (i, i): in-batch columns that are their row's own positive."""
    own = np.arange(count, dtype=np.int64)
    return MaskedPairs(own, own)


def union_of(*pairs: MaskedPairs) -> MaskedPairs:
    """Returns the cells of all of them, sorted by row."""
    rows = np.concatenate([pair.rows for pair in pairs])
    columns = np.concatenate([pair.columns for pair in pairs])
    order = np.argsort(rows, kind="stable")
    return MaskedPairs(rows[order], columns[order])
