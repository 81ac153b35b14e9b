"""What losses share: masked pairs, corrections and weights, and logits in chunks of rows.

A column of the logits is a negative that all rows of the batch share: an in-batch, a sampled or a queued item. The
parameter `columns` of every loss holds their vectors.

Letters: B rows, C columns, H hard negatives, P pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from dssm_assets.core.arrays.ordering import sort_with_places
from dssm_assets.core.arrays.ragged import IntArray, offsets_of, ranges, row_of_value

Affine: TypeAlias = tuple[Tensor, Tensor]
"""|w| and b of a learned similarity |w| * (u . v) + b, scalar tensors."""


@dataclass(frozen=True)
class MaskedPairs:
    """Cells of the logits [B, C] that do not count, sorted by row; a cell may be named twice."""

    rows: IntArray  # [P]
    columns: IntArray  # [P]


def matching_pairs(rows: IntArray, items: IntArray, column_items: IntArray) -> MaskedPairs:
    """Returns every (row, column) whose column's item is one of the row's items.

    Args:
        rows: row of each entry, ascending.
        items: item index of each entry.
        column_items: item index of each column [C], none negative; a negative item matches nothing.
    """
    # A table over item indices instead of a binary search: most entries match no column and cost one look-up.
    no_item = int(max(column_items.max(initial=-1), items.max(initial=-1))) + 1
    columns_per_item = np.bincount(column_items, minlength=no_item + 1)
    ends = np.cumsum(columns_per_item)
    known = np.where(items < 0, no_item, items)
    matching = np.flatnonzero(columns_per_item[known])
    last = ends[known[matching]]
    first = last - columns_per_item[known[matching]]
    positions = ranges(first, last - first)
    return MaskedPairs(np.repeat(rows[matching], last - first), sort_with_places(column_items)[1][positions])


def expand_to_members(cells: MaskedPairs, group: IntArray, count: int) -> MaskedPairs:
    """Returns the cells of rows, each of which has the cells of its group.

    Example: cells (0, 5), (1, 7), (1, 8) of groups 0 and 1, and rows in the groups 1, 0, 1 give
    (0, 7), (0, 8), (1, 5), (2, 7), (2, 8).

    Args:
        cells: group in place of row, sorted by group.
        group: of each row [B].
    """
    ends = np.cumsum(np.bincount(cells.rows, minlength=count))
    begins = np.concatenate([np.zeros(1, np.int64), ends[:-1]])
    lengths = (ends - begins)[group]
    positions = ranges(begins[group], lengths)
    return MaskedPairs(row_of_value(offsets_of(lengths)), cells.columns[positions])


def diagonal_pairs(count: int) -> MaskedPairs:
    """Returns the cells (i, i): in-batch columns that are their row's own positive."""
    own = np.arange(count, dtype=np.int64)
    return MaskedPairs(own, own)


def merge_pairs(*pairs: MaskedPairs) -> MaskedPairs:
    """Returns the cells of all arguments, sorted by row."""
    rows = np.concatenate([pair.rows for pair in pairs])
    columns = np.concatenate([pair.columns for pair in pairs])
    order = np.argsort(rows, kind="stable")
    return MaskedPairs(rows[order], columns[order])


@dataclass(frozen=True)
class LossTerms:
    """Corrections, weights and masks of one batch.

    A row is compared with its positive, with every column that is not masked for it, and with its own hard negatives.
    Index arrays are numpy arrays; tensors are on the device of the vectors.

    Attributes:
        positive_correction: subtracted from the logit of each row's positive [B].
        column_correction: subtracted from the logits of each column, columns in the order of the logits [C].
        weight: of each row in the loss, above 0 [B].
        masked: cells [B, C] that do not count.
        logits_chunk_rows: rows of logits in memory at once; changes memory and speed, not the result.
        hard_rows: the one row that each hard negative counts for, in any order [H].
        hard_correction: subtracted from the logit of each hard negative [H].
    """

    positive_correction: Tensor
    column_correction: Tensor
    weight: Tensor
    masked: MaskedPairs
    logits_chunk_rows: int = 256
    hard_rows: IntArray = field(default_factory=lambda: np.zeros(0, np.int64))
    hard_correction: Tensor = field(default_factory=lambda: torch.zeros(0))

    def to(self, device: torch.device) -> LossTerms:
        """Returns the terms with their tensors on the device."""
        return replace(
            self,
            positive_correction=self.positive_correction.to(device),
            column_correction=self.column_correction.to(device),
            weight=self.weight.to(device),
            hard_correction=self.hard_correction.to(device),
        )


def merge_columns(terms: LossTerms, group: IntArray, count: int) -> LossTerms:
    """Returns the terms of the same loss in which column j has become column group[j] of `count`.

    Args:
        group: of the first columns. The queued columns follow in their order.
    """
    merged = terms.column_correction[: len(group)].numpy().astype(np.float64)
    correction = -np.log(np.bincount(group, weights=np.exp(-merged), minlength=count))
    queued = terms.column_correction[len(group) :]
    column = np.concatenate([group, count + np.arange(len(queued), dtype=np.int64)])
    return replace(
        terms,
        column_correction=torch.cat([torch.from_numpy(correction.astype(np.float32)), queued]),
        masked=MaskedPairs(terms.masked.rows, column[terms.masked.columns]),
    )


Floats = npt.NDArray[np.float64]


def log_expected_counts(probability: Floats, draws: int, strength: float) -> npt.NDArray[np.float32]:
    """Returns strength * log(draws * probability) per column: the logQ correction of columns drawn in the same way.

    Args:
        probability: of each column's item, positive unless the strength is 0.
        draws: number of columns drawn in this way.
        strength: 1 corrects fully, 0 not at all.
    """
    if strength == 0:
        return np.zeros(len(probability), np.float32)
    return (strength * np.log(draws * probability)).astype(np.float32)


_MAX_CELLS = 1 << 24
"""Logits of a batch that are stored for backward; those of larger batches are computed a second time."""


def compute_in_chunks(function: Callable[..., Tensor], of_rows: Sequence[Tensor], columns: Tensor, terms: LossTerms) -> Tensor:
    """Returns the function's number of every row [B], `terms.logits_chunk_rows` at a time.

    Args:
        function: returns a number per row [R] from some rows of each tensor in `of_rows`, the columns, and the masked cells as
            positions in the flat [R * C].
        of_rows: tensors of B rows.
        columns: vectors of the columns [C, D].
    """
    size, is_large = terms.logits_chunk_rows, len(terms.weight) * len(columns) > _MAX_CELLS
    in_chunk = torch.from_numpy(terms.masked.rows % size * len(columns) + terms.masked.columns).to(columns.device)
    bounds = np.searchsorted(terms.masked.rows, np.arange(0, len(terms.weight) + size, size)).tolist()
    found = []
    for *rows, (first, end) in zip(*(torch.split(tensor, size) for tensor in of_rows), pairwise(bounds), strict=False):
        arguments = (*rows, columns, in_chunk[first:end])
        found.append(checkpoint(function, *arguments, use_reentrant=False) if is_large else function(*arguments))
    return torch.cat(found)


def mask_cells(cells: Tensor, masked: Tensor, value: float) -> Tensor:
    """Sets the cells [R, C] at the masked positions of the flat [R * C] to this value; a position may occur twice."""
    return cells.view(-1).index_fill_(0, masked, value).view_as(cells)


def hard_by_row(values: Tensor, terms: LossTerms, fill: float) -> Tensor:
    """Returns the values of hard negatives [H] row by row [B, most of a row], the rest filled."""
    order = np.argsort(terms.hard_rows, kind="stable")
    counts = np.bincount(terms.hard_rows, minlength=len(terms.weight))
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order)) - offsets_of(counts)[terms.hard_rows[order]]
    cells = values.new_full((len(counts), int(counts.max(initial=0))), fill)
    return cells.index_put(tuple(torch.from_numpy(index).to(values.device) for index in (terms.hard_rows, place)), values)


def counted_cells(terms: LossTerms) -> Tensor:
    """Returns which columns and hard negatives count for which row, bool [B, C + H]."""
    rows, columns = len(terms.weight), len(terms.column_correction)
    counted = torch.zeros(rows, columns + len(terms.hard_rows), dtype=torch.bool)
    counted[:, :columns] = True
    counted[terms.masked.rows, terms.masked.columns] = False
    counted[terms.hard_rows, columns + np.arange(len(terms.hard_rows))] = True
    return counted


def count_negatives(terms: LossTerms, num_columns: int) -> Tensor:
    """Returns how many columns and hard negatives count for each row [B]."""
    masked = np.unique(terms.masked.rows * num_columns + terms.masked.columns) // max(1, num_columns)
    counts = [np.bincount(rows, minlength=len(terms.weight)) for rows in (masked, terms.hard_rows)]
    return torch.from_numpy(num_columns - counts[0] + counts[1])


def at_least_float32(vectors: Tensor) -> Tensor:
    """Returns half-precision vectors as float32 and others unchanged: sums and exponentials need the digits."""
    return vectors.float() if vectors.dtype in (torch.bfloat16, torch.float16) else vectors
