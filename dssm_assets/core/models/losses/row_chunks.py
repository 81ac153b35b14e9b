"""Logits in chunks of rows: their masks, and the number formats of their products.

Letters: B rows, C columns, R rows of a chunk.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dssm_assets.core.arrays.ragged import IntArray
from dssm_assets.core.models.losses.loss_terms import LossTerms


@dataclass(frozen=True)
class RowChunk:
    """Consecutive rows of the logits [R, C].

    Attributes:
        rows: which rows of the batch.
        masked: cells that do not count, as positions in the flat [R * C]; a cell may be named twice.
    """

    rows: slice
    masked: Tensor

    def fill_masked(self, cells: Tensor, value: float = 0.0) -> None:
        """Sets the masked cells of a contiguous [R, C]."""
        cells.view(-1).index_fill_(0, self.masked, value)


def row_chunks(terms: LossTerms, num_columns: int, device: torch.device) -> Iterator[RowChunk]:
    """Yields the rows of the batch in order, `terms.logits_chunk_rows` at a time."""
    num_rows = len(terms.weight)
    masked = torch.from_numpy(_flat_cells(terms, num_columns)).to(device)
    begins = np.arange(0, num_rows, terms.logits_chunk_rows)
    bounds = np.searchsorted(terms.masked.rows, np.append(begins, num_rows)).tolist()
    for index, begin in enumerate(begins.tolist()):
        rows = slice(begin, min(begin + terms.logits_chunk_rows, num_rows))
        yield RowChunk(rows, masked[bounds[index] : bounds[index + 1]] - begin * num_columns)


def count_unmasked_columns(terms: LossTerms, num_columns: int) -> IntArray:
    """Returns how many columns count for each row [B]."""
    distinct = np.unique(_flat_cells(terms, num_columns))
    return num_columns - np.bincount(distinct // max(1, num_columns), minlength=len(terms.weight))


def to_factor(values: Tensor, terms: LossTerms) -> Tensor:
    """Returns a factor of a product in the number format that the terms ask for: unchanged, or in bfloat16."""
    return values.bfloat16() if terms.bfloat16 else values


def add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Adds left @ right to the float32 total, the left factor in the number format of the right one."""
    if right.dtype == total.dtype:
        total.addmm_(left, right)
    else:
        total += torch.mm(left.to(right.dtype), right)


def at_least_float32(vectors: Tensor) -> Tensor:
    """Returns half-precision vectors as float32 and others unchanged: sums and exponentials need the digits."""
    return vectors.float() if vectors.dtype in (torch.bfloat16, torch.float16) else vectors


def _flat_cells(terms: LossTerms, num_columns: int) -> IntArray:
    flat: IntArray = terms.masked.rows * num_columns + terms.masked.columns
    return flat
