"""How weights move: exact row-wise Adagrad for embedding tables, AdamW for dense layers, one schedule for both.

Belongs here: updates and the schedule. Does not belong here: gradients.

Letters: n values read, U distinct rows, G bags, d width of a table.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from dssm_assets.core.models.bags import row_of
from dssm_assets.core.models.embedding import EmbeddingTables, Lookup, weighted_sums

_EPSILON = 1e-8


class RowwiseAdagrad:
    """Adagrad with one accumulator per table row, exact in rows that a batch reads several times.

    A row's gradient is the sum over all places that read it; then its accumulator grows by the mean square of that
    sum and the row moves by rate * gradient / sqrt(accumulator). Row 0 (missing) never moves.
    Duchi et al. 2011, with the mean over the row as in row-wise variants for embeddings.
    """

    def __init__(self, tables: EmbeddingTables) -> None:
        self._tables = tables
        self._squares = {dim: torch.zeros(len(tables.table(dim))) for dim in tables.dims}

    def step(self, tape: Sequence[Lookup], learning_rate: float) -> None:
        """Moves the rows that the look-ups read, after backward has filled in the gradients of their bags."""
        for dim in self._tables.dims:
            found = [lookup for lookup in tape if lookup.dim == dim]
            if found:
                rows, gradient = row_gradients(found)  # [U], [U, d]
                self._move(dim, rows, gradient, learning_rate)

    def _move(self, dim: int, rows: Tensor, gradient: Tensor, learning_rate: float) -> None:
        squares = self._squares[dim]
        grown = squares[rows] + gradient.square().mean(1)
        squares[rows] = grown
        self._tables.table(dim).index_add_(0, rows, gradient * (-learning_rate / (grown.sqrt() + _EPSILON))[:, None])


def row_gradients(found: Sequence[Lookup]) -> tuple[Tensor, Tensor]:
    """Returns the distinct rows other than 0 that the look-ups of one table read [U] and their gradients [U, d].

    Values are sorted by (row, place), so each row's gradient is summed in one order whatever the number of threads.
    """
    rows = np.concatenate([lookup.rows for lookup in found])
    bag_counts = [len(lookup.offsets) - 1 for lookup in found]
    bases = np.concatenate([[0], np.cumsum(bag_counts)[:-1]])
    bags = np.concatenate([row_of(lookup.offsets) + base for lookup, base in zip(found, bases, strict=True)])
    weights = None
    if any(lookup.weights is not None for lookup in found):
        ones = [np.ones(len(lookup.rows), np.float32) if lookup.weights is None else lookup.weights for lookup in found]
        weights = np.concatenate(ones)
    gradients = torch.cat([_gradient(lookup) for lookup in found])  # [G, d]
    # Sorting (row, place) packed in one integer is several times faster than an argsort and has no ties.
    shift = len(rows).bit_length()
    packed = np.sort((rows << shift) | np.arange(len(rows)))
    packed = packed[np.searchsorted(packed, 1 << shift) :]
    sorted_rows, order = packed >> shift, packed & ((1 << shift) - 1)
    starts = np.flatnonzero(np.diff(sorted_rows, prepend=-1))
    offsets = np.append(starts, len(sorted_rows))
    summed = weighted_sums(gradients, bags[order], offsets, None if weights is None else weights[order])
    return torch.from_numpy(sorted_rows[starts]), summed


def dense_optimiser(module: nn.Module, learning_rate: float, weight_decay: float) -> torch.optim.AdamW:
    """Returns AdamW over the module's parameters; matrices decay, biases and norms do not."""
    matrices = [p for p in module.parameters() if p.ndim > 1]
    vectors = [p for p in module.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=learning_rate)


def learning_rate_frac(step: int, steps: int, warmup_frac: float, final_frac: float) -> float:
    """Returns the share of the learning rate that step 0 .. steps - 1 uses.

    Rises linearly to 1 over the first warmup_frac of the steps, then falls linearly to final_frac at the last step.
    """
    warmup = math.ceil(warmup_frac * steps)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    done = (step - warmup) / max(1, steps - 1 - warmup)
    return 1.0 + (final_frac - 1.0) * done


def _gradient(lookup: Lookup) -> Tensor:
    gradient = lookup.pooled.grad
    return torch.zeros_like(lookup.pooled) if gradient is None else gradient
