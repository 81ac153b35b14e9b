"""Which negatives do not count for which row, as (row, column) pairs instead of a matrix.

Belongs here: finding the pairs. Does not belong here: the logits they are taken out of.

Letters: B rows, C columns, P pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dssm_assets.core.models.bags import IntArray, ragged_positions, row_of


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
        column_items: item index of each column [C], none negative; a negative item matches nothing.
    """
    # A table over item indices instead of a binary search: most entries match no column and cost one look-up.
    nothing = int(max(column_items.max(initial=-1), items.max(initial=-1))) + 1
    held = np.bincount(column_items, minlength=nothing + 1)
    ends = np.cumsum(held)
    known = np.where(items < 0, nothing, items)
    matching = np.flatnonzero(held[known])
    last = ends[known[matching]]
    first = last - held[known[matching]]
    positions, _ = ragged_positions(first, last)
    return MaskedPairs(np.repeat(rows[matching], last - first), np.argsort(column_items, kind="stable")[positions])


def of_members(cells: MaskedPairs, group: IntArray, count: int) -> MaskedPairs:
    """Returns the cells of rows that share those of their group.

    Example: cells (0, 5), (1, 7), (1, 8) of two groups and rows of groups 1, 0, 1: (0, 7), (0, 8), (1, 5), (2, 7), (2, 8).

    Args:
        cells: of the groups, sorted by group.
        group: of each row [B].
        count: how many groups there are.
    """
    ends = np.cumsum(np.bincount(cells.rows, minlength=count))
    begins = np.concatenate([np.zeros(1, np.int64), ends[:-1]])
    places, offsets = ragged_positions(begins[group], ends[group])
    return MaskedPairs(row_of(offsets), cells.columns[places])


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
