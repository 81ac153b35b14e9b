"""Losses as functions of embeddings, with their masks, corrections and weights.

To add a loss, write one function, one line in `LOSSES`, its meaning in `Loss` (core/config/model.py) and one test. A plug-in
(docs/platform.md) sets `LOSSES["my_loss"] = my_loss`. Does not belong here: the choice of negatives (`samplers`,
`core/training/batch_negatives.py`).

A column of the logits is a negative that all rows of the batch share: an in-batch or a sampled item. A row is
compared with its positive, with every column not masked for this row, and with its own hard negatives.

Letters: B rows, C columns, H hard negatives, P pairs, D vector width, R rows of a chunk.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Final, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from dssm_assets.core.arrays.ragged import IntArray
from dssm_assets.core.names import REGISTRIES

Affine: TypeAlias = tuple[Tensor, Tensor]
"""|w| and b of a learned similarity |w| * (u . v) + b, scalar tensors."""
CHUNK_ROWS: Final = 256
"""Rows of logits in memory at once."""


@dataclass(frozen=True)
class MaskedPairs:
    """Masked cells of the logits [B, C], sorted by row. A cell may occur twice."""

    rows: IntArray  # [P]
    columns: IntArray  # [P]


@dataclass(frozen=True)
class LossTerms:
    """Corrections, weights and masks of one batch. Index arrays are numpy arrays; tensors are on the device of the vectors.

    Attributes:
        positive_correction: subtracted from the logit of each row's positive [B].
        column_correction: subtracted from the logits of each column [C], in the order of the columns.
        weight: weight of each row in the loss, above 0 [B].
        masked: cells of the logits [B, C] to leave out.
        hard_rows: the row of each hard negative, in any order [H].
        hard_correction: subtracted from the logit of each hard negative [H].
    """

    positive_correction: Tensor
    column_correction: Tensor
    weight: Tensor
    masked: MaskedPairs
    hard_rows: IntArray = field(default_factory=lambda: np.zeros(0, np.int64))
    hard_correction: Tensor = field(default_factory=lambda: torch.zeros(0))

    def to(self, device: torch.device) -> LossTerms:
        names = ("positive_correction", "column_correction", "weight", "hard_correction")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})


LossFunction: TypeAlias = Callable[[Tensor, Tensor, Tensor, Tensor, LossTerms, "Tensor | float", "Affine | None"], Tensor]
"""Returns the weighted mean of the rows' losses, a differentiable scalar. For the arguments see `softmax_loss`."""


def softmax_loss(
    user: Tensor,
    positive: Tensor,
    columns: Tensor,
    hard: Tensor,
    terms: LossTerms,
    scale: Tensor | float,
    affine: Affine | None = None,
) -> Tensor:
    """Returns the softmax cross entropy of each row's positive against its negatives.

        logit(i, j) = scale * (u_i . v_j) - correction_j
        loss_i = log(sum of exp logit over the positive p_i, the columns and the hard negatives) - logit(i, p_i)

    Args:
        user: vectors of the rows' users [B, D].
        positive: vectors of the rows' own items [B, D].
        columns: vectors of the negatives that all rows share [C, D].
        hard: vectors of the hard negatives [H, D]; each counts for one row (`terms.hard_rows`).
        scale: 1 / temperature, the factor of the similarity; a scalar tensor if it is learned.
        affine: |w| and b of the similarity |w| * (u . v) + b, None unless `model.learn_scale` is on. This loss ignores it: the scale
            is such a factor already, and an offset cancels in a softmax.
    """
    scaled, hard_rows = user * scale, torch.from_numpy(terms.hard_rows).to(user.device)
    own = (scaled * positive).sum(1) - terms.positive_correction  # [B]
    own_hard = (scaled[hard_rows] * hard).sum(1) - terms.hard_correction  # [H]
    largest = own.detach().scatter_reduce(0, hard_rows, own_hard.detach(), "amax")
    sums = (own - largest).exp().index_add(0, hard_rows, (own_hard - largest[hard_rows]).exp())
    weight = terms.weight / terms.weight.sum()
    by_hard = largest + sums.log()  # log(exp own + sum of exp own_hard) [B]
    by_columns = _sum_rows(_add_columns, scaled, columns, -terms.column_correction, by_hard, weight, terms.masked)
    return by_columns + (weight * (by_hard - own)).sum()


@dataclass(frozen=True)
class PairLoss:
    """A loss of single pairs: a row's item has label 1, a negative has label 0. The result is the weighted mean over the rows.

        x(i, j) = scale * (|w| * (u_i . v_j) + b) - correction_j         w = 1 and b = 0 unless they are learned
        loss_i = positive_loss(x(i, p_i)) + mean over the negatives of negative_loss(x(i, j))

    A row's negatives have total weight 1, like the positive, whatever their number.

    Attributes:
        positive_loss: loss of a row and its item.
        negative_loss: loss of a row and a negative.
        negative_slope: derivative of `negative_loss`.
        masked: value of x for masked pairs; `negative_loss` and its derivative are 0 there.
        is_of_logits: whether x is a logit. If not, x has neither scale nor correction.
    """

    positive_loss: Callable[[Tensor], Tensor]
    negative_loss: Callable[[Tensor], Tensor]
    negative_slope: Callable[[Tensor], Tensor]
    masked: float
    is_of_logits: bool

    def __call__(
        self,
        user: Tensor,
        positive: Tensor,
        columns: Tensor,
        hard: Tensor,
        terms: LossTerms,
        scale: Tensor | float,
        affine: Affine | None = None,
    ) -> Tensor:
        factor, logq = (scale, 1.0) if self.is_of_logits else (1.0, 0.0)
        slope, offset = (factor, 0.0) if affine is None else (affine[0] * factor, affine[1] * factor)
        scaled, hard_rows = user * slope, torch.from_numpy(terms.hard_rows).to(user.device)
        own = self.positive_loss((scaled * positive).sum(1) + offset - logq * terms.positive_correction)
        of_hard = self.negative_loss((scaled[hard_rows] * hard).sum(1) + offset - logq * terms.hard_correction)
        sums = torch.zeros_like(own).index_add(0, hard_rows, of_hard)
        counts = count_negatives(terms, len(columns)).clamp(min=1).to(user.device)
        weight, shift = terms.weight / terms.weight.sum(), offset - logq * terms.column_correction
        each = weight / counts
        negatives = _sum_rows(self._sum_losses, scaled, columns, shift, sums, each, terms.masked, self.masked)
        return (weight * own).sum() + negatives

    def _sum_losses(self, x: Tensor, sums: Tensor) -> tuple[Tensor, Tensor]:
        losses = sums + self.negative_loss(x).sum(1)
        x.copy_(self.negative_slope(x))
        return losses, torch.ones_like(sums)


def _log1p_exp(x: Tensor) -> Tensor:
    return softplus(x, threshold=50.0)  # above the threshold it returns x: the difference is below float64's precision


sigmoid_loss: Final = PairLoss(lambda x: _log1p_exp(-x), _log1p_exp, torch.sigmoid, masked=-torch.inf, is_of_logits=True)
"""The binary cross entropy of every single pair.

Without a correction, the best logit of a pair is log(times it is a positive / times it is a negative): too low for popular items.
The logQ correction offsets the logit by the log of a negative's expected count.
"""
l2_loss: Final = PairLoss(lambda x: (1.0 - x).square(), torch.square, lambda x: 2.0 * x, masked=0.0, is_of_logits=False)
"""The squared difference between every pair's similarity and its label.

It has no correction, because a similarity is no logit, and no temperature, because that would only move the two targets.
"""

LOSSES: Final[dict[str, LossFunction]] = {"softmax": softmax_loss, "sigmoid": sigmoid_loss, "l2": l2_loss}
"""Name in `model.loss` -> its function."""
REGISTRIES["loss"] = LOSSES


def count_negatives(terms: LossTerms, num_columns: int) -> Tensor:
    """Returns the number of each row's negatives [B]: unmasked columns, and hard negatives."""
    masked = np.unique(terms.masked.rows * num_columns + terms.masked.columns) // max(1, num_columns)
    counts = [np.bincount(rows, minlength=len(terms.weight)) for rows in (masked, terms.hard_rows)]
    return torch.from_numpy(num_columns - counts[0] + counts[1])


_LOG2_E: Final = math.log2(math.e)
_Reduce: TypeAlias = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Reduces logits [R, C] and another number per row [R] to one number per row. Returns it and its derivative by the other number [R].

The logits are overwritten by the derivatives with respect to them.
"""


def _add_columns(logits: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
    """A `_Reduce` with the result log(exp own + sum of exp logits) - own."""
    largest = torch.maximum(logits.amax(1), own) if logits.shape[1] else own
    logits.sub_(largest[:, None]).mul_(_LOG2_E).exp2_()  # torch's exp takes twice as long, and 15 times where it underflows
    own_power = torch.exp(own - largest)
    sums = logits.sum(1) + own_power
    logits.div_(sums[:, None])
    return largest - own + sums.log(), own_power / sums - 1.0


def _sum_rows(
    reduce: _Reduce,
    scaled: Tensor,
    columns: Tensor,
    shift: Tensor,
    own: Tensor,
    weight: Tensor,
    masked: MaskedPairs,
    fill: float = -torch.inf,
) -> Tensor:
    """Returns the weighted sum of `reduce` over all rows. Only CHUNK_ROWS rows of logits are in memory at a time.

    Args:
        scaled: the rows' vectors [B, D]. The logits are their products with the columns [C, D], plus the shift [C].
        own: the second argument of `reduce` [B].
        masked: cells of the logits to set to `fill`.
    """
    cells = torch.from_numpy(masked.rows % CHUNK_ROWS * len(columns) + masked.columns).to(columns.device)
    bounds = np.searchsorted(masked.rows, np.arange(0, len(scaled) + CHUNK_ROWS, CHUNK_ROWS)).tolist()
    chunks = [cells[first:end] for first, end in pairwise(bounds)]
    total: Tensor = _SumOfRows.apply(reduce, scaled, columns, shift, own, weight, chunks, fill)  # type: ignore[no-untyped-call]
    return total


class _SumOfRows(torch.autograd.Function):
    """Computes a chunk's gradient together with its sum, so that the backward pass need not compute the logits again."""

    @staticmethod
    def forward(
        ctx: Any,
        reduce: _Reduce,
        scaled: Tensor,
        columns: Tensor,
        shift: Tensor,
        own: Tensor,
        weight: Tensor,
        chunks: list[Tensor],
        fill: float,
    ) -> Tensor:
        weight, total = weight.to(scaled.dtype), scaled.new_zeros(())
        grads = [torch.empty_like(scaled), torch.zeros_like(columns), torch.zeros_like(shift), torch.empty_like(own)]
        shift_of_row = shift.to(scaled.dtype)
        # All chunks share this memory: new pages for each chunk would cost a tenth of a step.
        memory = scaled.new_empty(min(CHUNK_ROWS, len(scaled)), len(columns))
        for number, masked in enumerate(chunks):
            rows = slice(number * CHUNK_ROWS, (number + 1) * CHUNK_ROWS)
            row_weight = weight[rows]
            logits = torch.addmm(shift_of_row, scaled[rows], columns.T, out=memory[: len(row_weight)])
            logits.view(-1).index_fill_(0, masked, fill)
            values, own_slope = reduce(logits, own[rows])
            total += row_weight @ values
            grads[0][rows] = row_weight[:, None] * (logits @ columns)
            grads[1].addmm_(logits.T, row_weight[:, None] * scaled[rows])
            if ctx.needs_input_grad[3]:
                grads[2] += row_weight @ logits
            grads[3][rows] = row_weight * own_slope
        ctx.save_for_backward(*grads)
        return total

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Any:
        return None, *(grad * grad_outputs[0] for grad in ctx.saved_tensors), None, None, None
