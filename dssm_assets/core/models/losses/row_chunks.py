"""The rows of a batch in portions, so that only a few rows of logits exist at a time.

Belongs here: the portions, their masked cells and the products whose factors may be rounded. Does not belong here: what
is computed of the logits.

Letters: B rows, C columns, R rows held at once, D vector width.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dssm_assets.core.models.bags import IntArray
from dssm_assets.core.models.losses.terms import LossTerms


@dataclass(frozen=True)
class RowChunk:
    """Consecutive rows of the logits [R, C].

    Attributes:
        rows: which ones.
        masked: cells that do not count, as positions in the flat [R * C]; a cell may be named twice.
    """

    rows: slice
    masked: Tensor

    def clear(self, cells: Tensor, value: float = 0.0) -> None:
        """Sets the masked cells of a contiguous [R, C]."""
        cells.view(-1).index_fill_(0, self.masked, value)


def row_chunks(terms: LossTerms, num_columns: int, device: torch.device) -> Iterator[RowChunk]:
    """Yields the rows of the batch in order, `terms.logits_rows` at a time."""
    num_rows = len(terms.weight)
    masked = torch.from_numpy(_flat(terms, num_columns)).to(device)
    begins = np.arange(0, num_rows, terms.logits_rows)
    bounds = np.searchsorted(terms.masked.rows, np.append(begins, num_rows)).tolist()
    for index, begin in enumerate(begins.tolist()):
        rows = slice(begin, min(begin + terms.logits_rows, num_rows))
        yield RowChunk(rows, masked[bounds[index] : bounds[index + 1]] - begin * num_columns)


def columns_left(terms: LossTerms, num_columns: int) -> IntArray:
    """Returns how many columns count for each row [B]."""
    distinct = np.unique(_flat(terms, num_columns))
    return num_columns - np.bincount(distinct // max(1, num_columns), minlength=len(terms.weight))


def rounded(factor: Tensor, terms: LossTerms) -> Tensor:
    """Returns a factor of a product as the terms want it: as it is, or in bfloat16."""
    return factor.bfloat16() if terms.bfloat16 else factor


def add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Adds left @ right to the float32 total, the left factor in the number format of the right one."""
    if right.dtype == total.dtype:
        total.addmm_(left, right)
    else:
        total += torch.mm(left.to(right.dtype), right)


def full(vectors: Tensor) -> Tensor:
    """Returns vectors in float32 at least, as sums and exponentials need them."""
    return vectors.float() if vectors.dtype in (torch.bfloat16, torch.float16) else vectors


def _flat(terms: LossTerms, num_columns: int) -> IntArray:
    flat: IntArray = terms.masked.rows * num_columns + terms.masked.columns
    return flat
