"""Optimisers: exact row-wise Adagrad or Adam for embedding tables, AdamW for dense layers, one learning rate schedule.

Letters: n values read, U distinct rows, G bags, d width of a table.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from dssm_assets.core.arrays.ordering import sort_with_positions
from dssm_assets.core.arrays.ragged import repeat_rows
from dssm_assets.core.config.training import EmbeddingOptimiser, StepPlan
from dssm_assets.core.models.embedding import EmbeddingTables, Lookup, weighted_sums

_EPSILON = 1e-8
_DECAY, _SQUARE_DECAY = 0.9, 0.999
"""Decays of Adam's moments, as in torch's AdamW."""


@dataclass(frozen=True)
class RowGradients:
    """The distinct rows that a step reads from one table, ascending and without row 0, with their gradients."""

    dim: int
    rows: Tensor  # [U]
    gradient: Tensor  # [U, d]


class RowwiseAdagrad:
    """Adagrad with one accumulator per table row. It is exact even if a batch reads a row several times.

    A row's gradient is the sum over all look-ups that read it. The row's accumulator grows by the mean square of this gradient,
    and the row changes by -rate * gradient / sqrt(accumulator). Row 0 (missing) never changes.
    Duchi et al. 2011, with the mean over the row as in row-wise variants for embeddings.
    """

    def __init__(self, tables: EmbeddingTables) -> None:
        self._tables = tables
        self._squares = {dim: tables.table(dim).new_zeros(len(tables.table(dim))) for dim in tables.dims}

    def update_rows(self, gradients: Iterable[RowGradients], learning_rate: float) -> None:
        """Makes one step. Only the rows read in this step change."""
        for found in gradients:
            squares = self._squares[found.dim]
            grown = squares.index_select(0, found.rows) + found.gradient.square().mean(1)
            squares.index_copy_(0, found.rows, grown)
            change = found.gradient * (-learning_rate / (grown.sqrt() + _EPSILON))[:, None]
            self._tables.table(found.dim).index_add_(0, found.rows, change)

    def state(self) -> dict[str, Tensor]:
        """Returns name -> tensor for everything that the next step needs, except the tables. The tensors are not copied."""
        return {f"squares_{dim}": squares for dim, squares in self._squares.items()}


class RowwiseAdam:
    """Adam with a first moment per value and a second moment per row. It is exact even if a batch reads a row several times.

    t counts all steps, and k the steps since the row was last read (1 if the previous step read it):

        m = b1^k m + (1 - b1) g,    v = b2^k v + (1 - b2) mean(g^2)
        row -= rate * m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + epsilon)

    The result equals Adam's with a zero gradient in all steps that did not read the row, but rows cost time only when read.
    Kingma and Ba 2015. This lazy decay is exact; torch's SparseAdam leaves it out.
    """

    def __init__(self, tables: EmbeddingTables) -> None:
        self._tables = tables
        full = {dim: tables.table(dim) for dim in tables.dims}
        self._mean = {dim: torch.zeros_like(table) for dim, table in full.items()}  # [rows, d]
        self._square = {dim: table.new_zeros(len(table)) for dim, table in full.items()}  # [rows]
        self._read_at = {dim: torch.zeros(len(table), dtype=torch.int64, device=table.device) for dim, table in full.items()}
        self._done = torch.zeros((), dtype=torch.int64)

    def update_rows(self, gradients: Iterable[RowGradients], learning_rate: float) -> None:
        self._done += 1
        step = int(self._done)
        rate = learning_rate / (1.0 - _DECAY**step)
        for found in gradients:
            dim, rows = found.dim, found.rows
            means, squares, read_at = self._mean[dim], self._square[dim], self._read_at[dim]
            idle = (step - read_at.index_select(0, rows)).double()
            mean = means.index_select(0, rows) * (_DECAY**idle).float()[:, None] + (1.0 - _DECAY) * found.gradient
            square = squares.index_select(0, rows) * (_SQUARE_DECAY**idle).float()
            square = square + (1.0 - _SQUARE_DECAY) * found.gradient.square().mean(1)
            means.index_copy_(0, rows, mean)
            squares.index_copy_(0, rows, square)
            read_at.index_fill_(0, rows, step)
            size = (square / (1.0 - _SQUARE_DECAY**step)).sqrt() + _EPSILON
            self._tables.table(dim).index_add_(0, rows, mean * (-rate / size)[:, None])

    def state(self) -> dict[str, Tensor]:
        named = {"mean": self._mean, "square": self._square, "read_at": self._read_at}
        return {"done": self._done} | {f"{name}_{dim}": rows for name, by_dim in named.items() for dim, rows in by_dim.items()}


def row_optimiser(tables: EmbeddingTables, kind: EmbeddingOptimiser) -> RowwiseAdagrad | RowwiseAdam:
    return RowwiseAdam(tables) if kind is EmbeddingOptimiser.ADAM else RowwiseAdagrad(tables)


def gradients_of(tables: EmbeddingTables, tape: Sequence[Lookup]) -> list[RowGradients]:
    """Returns the rows and gradients of the look-ups, table by table."""
    by_dim = {dim: [lookup for lookup in tape if lookup.dim == dim] for dim in tables.dims}
    return [RowGradients(dim, *row_gradients(found)) for dim, found in by_dim.items() if found]


def row_gradients(found: Sequence[Lookup]) -> tuple[Tensor, Tensor]:
    """Returns the distinct rows, without row 0, in the look-ups of one table [U], and their gradients [U, d].

    Values are sorted by (row, position), so a row's gradient is summed in the same order with any number of threads.
    """
    pooled = [lookup.pooled for lookup in found]
    gradients = torch.cat([torch.zeros_like(one) if one.grad is None else one.grad for one in pooled])  # [G, d]
    sorted_rows, order = sort_with_positions(np.concatenate([lookup.rows for lookup in found]))
    first = int(np.searchsorted(sorted_rows, 1))
    sorted_rows, order = sorted_rows[first:], order[first:]
    starts = np.flatnonzero(np.concatenate([sorted_rows[:1] > 0, sorted_rows[1:] != sorted_rows[:-1]]))
    bags, weights = order, None  # for look-ups without bags
    if any(lookup.offsets is not None for lookup in found):
        lengths = [np.ones(len(one.rows), np.int64) if one.offsets is None else np.diff(one.offsets) for one in found]
        bags = repeat_rows(np.concatenate(lengths)).take(order)
        by_value = [np.ones(len(one.rows), np.float32) if one.weights is None else one.weights for one in found]
        weights = np.concatenate(by_value).take(order)
    summed = weighted_sums(gradients, bags, np.append(starts, len(sorted_rows)), weights)
    return torch.from_numpy(sorted_rows[starts]).to(summed.device), summed


class DenseOptimiser:
    """AdamW for the parameters of a module (Loshchilov and Hutter 2019): matrices decay, biases and norms do not.

    Computes the same as torch.optim.AdamW without importing torch's compiler, which saves 1.5 seconds and 80 MB.
    """

    def __init__(self, module: nn.Module, weight_decay: float) -> None:
        parameters = list(module.parameters())
        self._parameters = [p for p in parameters if p.ndim > 1] + [p for p in parameters if p.ndim <= 1]
        self._weight_decay = weight_decay
        self._moments = [(torch.zeros(()), torch.zeros_like(p), torch.zeros_like(p)) for p in self._parameters]

    @torch.no_grad()
    def update(self, learning_rate: float) -> None:
        """Updates the parameters with their gradients. A parameter without gradient stays, and its step does not count."""
        for parameter, (step, mean, square) in zip(self._parameters, self._moments, strict=True):
            gradient = parameter.grad
            if gradient is None:
                continue
            step.add_(1)
            if parameter.ndim > 1:
                parameter.mul_(1.0 - learning_rate * self._weight_decay)
            mean.lerp_(gradient, 1.0 - _DECAY)
            square.mul_(_SQUARE_DECAY).addcmul_(gradient, gradient, value=1.0 - _SQUARE_DECAY)
            size = (square.sqrt() / (1.0 - _SQUARE_DECAY ** float(step)) ** 0.5).add_(_EPSILON)
            parameter.addcdiv_(mean, size, value=-learning_rate / (1.0 - _DECAY ** float(step)))

    def state(self) -> dict[str, Tensor]:
        """Returns each parameter's moments and number of steps, named by its position. The tensors are not copied."""
        named = ({"step": step, "exp_avg": mean, "exp_avg_sq": square} for step, mean, square in self._moments)
        return {f"{place}.{name}": tensor for place, tensors in enumerate(named) for name, tensor in tensors.items()}


def learning_rate_frac(step: int, plan: StepPlan, final_frac: float) -> float:
    """Returns the fraction of the learning rate in step 0 .. num_steps - 1.

    It rises linearly to 1 over the warm-up steps, then falls linearly to final_frac at the last step.
    """
    if step < plan.warmup_steps:
        return (step + 1) / (plan.warmup_steps + 1)
    done = (step - plan.warmup_steps) / max(1, plan.decay_steps - 1)
    return 1.0 + (final_frac - 1.0) * done
