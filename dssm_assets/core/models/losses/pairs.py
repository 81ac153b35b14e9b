"""The weighted mean over pairs of user and item, for any loss of one pair: a row's item has label 1, a negative label 0.

For row i with positive p_i and its n_i negatives j (the columns that are not masked for it and its own hard negatives):

    x(i, j) = slope * (u_i . v_j) + offset - correction_j
    loss_i = positive_loss(x(i, p_i)) + sum_j negative_loss(x(i, j)) / n_i
    loss = sum_i w_i * loss_i / sum_i w_i

A row's negatives have total weight 1, like the positive, whatever their number. A row without negatives has the loss of
its positive alone.

Letters: B rows, C columns (the shared negatives), H hard negatives, D vector width, R rows of a chunk.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dssm_assets.core.models.losses.loss_terms import (
    LossTerms,
    at_least_float32,
    count_unmasked_columns,
    row_chunks,
    to_factor,
)
from dssm_assets.core.models.products import add_product, product


@dataclass(frozen=True)
class PairLoss:
    """The loss of one pair as a function of x.

    Attributes:
        positive_loss: returns the loss of each x and its derivative.
        negative_loss: returns the loss of each x and replaces x by its derivative.
        uses_logq: whether the logQ correction is subtracted from x.
        masked_x: value for masked cells: loss and gradient are 0.
    """

    positive_loss: Callable[[Tensor], tuple[Tensor, Tensor]]
    negative_loss: Callable[[Tensor], Tensor]
    uses_logq: bool
    masked_x: float


def mean_of_pairs(
    vectors: tuple[Tensor, Tensor, Tensor, Tensor],
    terms: LossTerms,
    slope: Tensor | float,
    offset: Tensor | float,
    pair_loss: PairLoss,
) -> Tensor:
    """Returns the loss, a scalar.

    Args:
        vectors: users [B, D], positives [B, D], columns (the shared negatives) [C, D] and hard negatives [H, D].
        slope: of x; a scalar tensor if it is learned.
        offset: of x; a scalar tensor if it is learned.
    """
    with torch.autocast(vectors[0].device.type, enabled=False):
        wide = [at_least_float32(tensor) for tensor in vectors]
        loss: Tensor = _ChunkedPairs.apply(*wide, slope, offset, terms, pair_loss)  # type: ignore[no-untyped-call]
    return loss


class _ChunkedPairs(torch.autograd.Function):
    """Computes the gradient while a chunk of pairs exists, so that backward has nothing to recompute."""

    @staticmethod
    def forward(
        ctx: Any,
        user: Tensor,
        positive: Tensor,
        columns: Tensor,
        hard: Tensor,
        slope: Tensor | float,
        offset: Tensor | float,
        terms: LossTerms,
        pair_loss: PairLoss,
    ) -> Tensor:
        hard_rows = torch.from_numpy(terms.hard_rows).to(user.device)
        hard_user = user[hard_rows]  # [H, D]
        row_weight = (terms.weight / terms.weight.sum()).to(user.dtype)  # [B]
        divisors = _negative_divisors(terms, len(columns)).to(row_weight)  # [B]
        negative_weight = row_weight / divisors  # [B], of each negative of the row
        scaled = user * slope
        positive_x = (scaled * positive).sum(1) + _shift(terms.positive_correction, offset, pair_loss)
        positive_loss, positive_grad = pair_loss.positive_loss(positive_x)
        hard_x = (scaled[hard_rows] * hard).sum(1) + _shift(terms.hard_correction.to(user.dtype), offset, pair_loss)
        hard_loss = pair_loss.negative_loss(hard_x)
        hard_grad = hard_x  # [H]: negative_loss has replaced x by the derivative
        shift = _shift(terms.column_correction, offset, pair_loss)
        by_row, grad_user, grad_columns = _column_sums(scaled, columns, shift, negative_weight, terms, pair_loss)
        positive_grad, hard_grad = positive_grad * row_weight, hard_grad * negative_weight[hard_rows]
        loss = (row_weight * positive_loss).sum() + (negative_weight[hard_rows] * hard_loss).sum() + by_row[0].sum()
        grad_user += positive_grad[:, None] * positive
        grad_user.index_add_(0, hard_rows, hard_grad[:, None] * hard)
        grad_slope = (grad_user * user).sum() if isinstance(slope, Tensor) else None
        grad_offset = positive_grad.sum() + hard_grad.sum() + by_row[1].sum() if isinstance(offset, Tensor) else None
        ctx.save_for_backward(
            grad_user * slope,
            positive_grad[:, None] * scaled,
            grad_columns,
            hard_grad[:, None] * hard_user * slope,
            grad_slope,
            grad_offset,
        )
        return loss

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Any:
        return *(None if saved is None else saved * grad_outputs[0] for saved in ctx.saved_tensors), None, None


def _column_sums(
    scaled: Tensor, columns: Tensor, shift: Tensor, negative_weight: Tensor, terms: LossTerms, pair_loss: PairLoss
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns what the columns add to the loss and its gradients, g_ij being the derivative of the loss by x(i, j).

    Args:
        scaled: users times slope [B, D].
        columns: vectors of the columns [C, D].
        shift: what is added to x of each column [C].
        negative_weight: weight in the loss of each negative of a row [B].

    Returns:
        Each row's loss and sum_j g_ij [2, B], sum_j g_ij v_j [B, D], sum_i g_ij scaled_i [C, D].
    """
    by_row, grad_user = scaled.new_empty(2, len(scaled)), torch.empty_like(scaled)
    grad_columns = columns.new_zeros(columns.shape[1], len(columns))  # [D, C]: the product is faster this way round
    factor = to_factor(columns, terms)
    buffer = columns.new_empty(min(terms.logits_chunk_rows, len(scaled)), len(columns))  # [R, C]
    for chunk in row_chunks(terms, len(columns), columns.device):
        rows = chunk.rows
        x = product(scaled[rows], columns.T, out=buffer[: rows.stop - rows.start]).add_(shift)
        chunk.fill_masked(x, pair_loss.masked_x)
        by_row[0, rows] = pair_loss.negative_loss(x).sum(1)  # x holds the derivatives from here on
        by_row[1, rows] = x.sum(1)
        weight = negative_weight[rows, None]  # [R, 1]
        derivatives = to_factor(x, terms)
        torch.mul(product(derivatives, factor), weight, out=grad_user[rows])
        add_product(grad_columns, (scaled[rows] * weight).T, derivatives)
    return by_row.mul_(negative_weight), grad_user, grad_columns.T.contiguous()


def _negative_divisors(terms: LossTerms, num_columns: int) -> Tensor:
    """Returns how many negatives each row has, 1 where it has none [B]."""
    counts = count_unmasked_columns(terms, num_columns) + np.bincount(terms.hard_rows, minlength=len(terms.weight))
    return torch.from_numpy(np.maximum(counts, 1))


def _shift(correction: Tensor, offset: Tensor | float, pair_loss: PairLoss) -> Tensor:
    """Returns what is added to x of pairs with these corrections."""
    subtracted = correction if pair_loss.uses_logq else torch.zeros_like(correction)
    return offset - subtracted
