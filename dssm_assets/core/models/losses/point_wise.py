"""Losses that look at every pair of user and item by itself: a row's item is 1, a negative is 0.

Belongs here: binary cross entropy and squared distance as functions of embeddings. Does not belong here: who the
negatives are and which do not count (`masks`).

For row i with positive p_i, n_i negatives j (the columns that are not masked for it and its own hard negatives), and the
similarity s(i, j) = |w| * (u_i . v_j) + b, where w = 1 and b = 0 unless they are learned:

    sigmoid   x(i, j) = scale * s(i, j) - correction_j
              loss_i = log(1 + exp(-x(i, p_i))) + sum_j log(1 + exp(x(i, j))) / n_i
    l2        loss_i = (1 - s(i, p_i))^2 + sum_j s(i, j)^2 / n_i

    loss = sum_i w_i * loss_i / sum_i w_i

A row's negatives weigh as much as its positive, however many they are; a row without negatives has its positive alone.

The logQ correction is an offset of the sigmoid's logit: the best x of a pair is the log of how often it is a positive
over how often it is a negative, so popular negatives push x down by the log of their expected count, and what is left
without it is what the towers should learn. l2 has none, because a distance from 1 has no such offset, and no scale,
because it would only move the two targets; its temperature plays no part.

Letters: B rows, C columns, H hard negatives, D vector width, R rows held at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from dssm_assets.core.models.losses.loss_terms import LossTerms
from dssm_assets.core.models.losses.softmax import add_product, columns_left, full, rounded, row_chunks

Affine = tuple[Tensor, Tensor]
"""|w| and b, tensors of no dimension."""


def sigmoid_loss(
    user: Tensor,
    positive: Tensor,
    columns: Tensor,
    hard: Tensor,
    terms: LossTerms,
    scale: Tensor | float,
    affine: Affine | None = None,
) -> Tensor:
    """Returns the weighted mean of the rows' binary cross entropy, a scalar.

    Args:
        user: vectors of the rows' users [B, D].
        positive: vectors of the rows' own items [B, D].
        columns: vectors of the negatives, shared by all rows [C, D].
        hard: vectors of the negatives that one row each has to itself [H, D].
        terms: corrections, weights and masks.
        scale: 1 / temperature, multiplies the similarity; a tensor of no dimension may learn.
        affine: |w| and b of the similarity, where they are learned.
    """
    if affine is None:
        return _mean_of_pairs((user, positive, columns, hard), terms, scale, 0.0, _SIGMOID)
    return _mean_of_pairs((user, positive, columns, hard), terms, affine[0] * scale, affine[1] * scale, _SIGMOID)


def l2_loss(
    user: Tensor,
    positive: Tensor,
    columns: Tensor,
    hard: Tensor,
    terms: LossTerms,
    scale: Tensor | float,
    affine: Affine | None = None,
) -> Tensor:
    """Returns the weighted mean of the rows' squared distances, a scalar.

    The arguments are those of `sigmoid_loss`; scale and corrections are not used.
    """
    weight, bias = (1.0, 0.0) if affine is None else affine
    return _mean_of_pairs((user, positive, columns, hard), terms, weight, bias, _L2)


@dataclass(frozen=True)
class _PairLoss:
    """A loss of one pair as a function of x.

    Attributes:
        of_positives: returns the loss of each x and its derivative.
        of_negatives: returns the loss of each x and puts its derivative into x.
        is_corrected: whether corrections are taken off x.
        nothing: an x whose loss and derivative are 0 as a negative.
    """

    of_positives: Callable[[Tensor], tuple[Tensor, Tensor]]
    of_negatives: Callable[[Tensor], Tensor]
    is_corrected: bool
    nothing: float


def _log1p_exp(x: Tensor) -> Tensor:
    # Beyond the threshold torch returns x itself; from 50 on float64 cannot tell the difference.
    return softplus(x, threshold=50.0)


def _sigmoid_negatives(x: Tensor) -> Tensor:
    loss = _log1p_exp(x)
    x.sigmoid_()
    return loss


def _l2_negatives(x: Tensor) -> Tensor:
    loss = x.square()
    x.mul_(2.0)
    return loss


_SIGMOID = _PairLoss(lambda x: (_log1p_exp(-x), torch.sigmoid(x) - 1.0), _sigmoid_negatives, True, -torch.inf)
_L2 = _PairLoss(lambda x: ((1.0 - x).square(), 2.0 * (x - 1.0)), _l2_negatives, False, 0.0)


def _mean_of_pairs(
    vectors: tuple[Tensor, Tensor, Tensor, Tensor],
    terms: LossTerms,
    slope: Tensor | float,
    offset: Tensor | float,
    kind: _PairLoss,
) -> Tensor:
    """Returns the loss where x = slope * (u . v) + offset, less the correction if the kind has one."""
    with torch.autocast(vectors[0].device.type, enabled=False):
        wide = [full(tensor) for tensor in vectors]
        loss: Tensor = _ChunkedPairs.apply(*wide, slope, offset, terms, kind)  # type: ignore[no-untyped-call]
    return loss


class _ChunkedPairs(torch.autograd.Function):
    """Takes the gradient while a chunk of pairs exists, so that backward has nothing to recompute."""

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
        kind: _PairLoss,
    ) -> Tensor:
        hard_rows = torch.from_numpy(terms.hard_rows).to(user.device)
        hard_user = user[hard_rows]  # [H, D]
        share = (terms.weight / terms.weight.sum()).to(user.dtype)  # [B]
        negative_share = share / _negatives(terms, len(columns)).to(share)  # [B]
        scaled = user * slope
        own_loss, own = kind.of_positives((scaled * positive).sum(1) + _shift(terms.positive_correction, offset, kind))
        alone = (scaled[hard_rows] * hard).sum(1) + _shift(terms.hard_correction.to(user.dtype), offset, kind)
        alone_loss = kind.of_negatives(alone)  # alone [H] holds the derivatives from here on
        shift = _shift(terms.column_correction, offset, kind)
        by_row, to_users, to_columns = _column_sums(scaled, columns, shift, negative_share, terms, kind)
        own, alone = own * share, alone * negative_share[hard_rows]
        loss = (share * own_loss).sum() + (negative_share[hard_rows] * alone_loss).sum() + by_row[0].sum()
        to_users += own[:, None] * positive
        to_users.index_add_(0, hard_rows, alone[:, None] * hard)
        grad_slope = (to_users * user).sum() if isinstance(slope, Tensor) else None
        grad_offset = own.sum() + alone.sum() + by_row[1].sum() if isinstance(offset, Tensor) else None
        grad_positive, grad_hard = own[:, None] * scaled, alone[:, None] * hard_user * slope
        ctx.save_for_backward(to_users * slope, grad_positive, to_columns, grad_hard, grad_slope, grad_offset)
        return loss

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Any:
        return *(None if saved is None else saved * grad_outputs[0] for saved in ctx.saved_tensors), None, None


def _column_sums(
    scaled: Tensor, columns: Tensor, shift: Tensor, share: Tensor, terms: LossTerms, kind: _PairLoss
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns what the columns add, g_ij the derivative of the loss by x: per row, to the users and to the columns.

    Args:
        scaled: users times slope [B, D].
        columns: vectors of the columns [C, D].
        shift: what is added to x of each column [C].
        share: of each negative of a row in the loss [B].
        terms: masks.
        kind: the loss of a pair.

    Returns:
        The rows' loss and sum_j g_ij [2, B], sum_j g_ij v_j [B, D], sum_i g_ij scaled_i [C, D].
    """
    by_row, to_users = scaled.new_empty(2, len(scaled)), torch.empty_like(scaled)
    to_columns = columns.new_zeros(columns.shape[1], len(columns))  # [D, C]: the product is faster this way round
    factor = rounded(columns, terms)
    held = columns.new_empty(min(terms.logits_chunk_rows, len(scaled)), len(columns))  # [R, C]
    for chunk in row_chunks(terms, len(columns), columns.device):
        rows = chunk.rows
        pairs = torch.mm(scaled[rows], columns.T, out=held[: rows.stop - rows.start]).add_(shift)
        chunk.clear(pairs, kind.nothing)
        by_row[0, rows] = kind.of_negatives(pairs).sum(1)
        by_row[1, rows] = pairs.sum(1)
        part = share[rows, None]  # [R, 1]
        derivatives = rounded(pairs, terms)
        torch.mul(torch.mm(derivatives, factor), part, out=to_users[rows])
        add_product(to_columns, (scaled[rows] * part).T, derivatives)
    return by_row.mul_(share), to_users, to_columns.T.contiguous()


def _negatives(terms: LossTerms, num_columns: int) -> Tensor:
    """Returns how many negatives each row has, 1 where it has none [B]."""
    counts = columns_left(terms, num_columns) + np.bincount(terms.hard_rows, minlength=len(terms.weight))
    return torch.from_numpy(np.maximum(counts, 1))


def _shift(correction: Tensor, offset: Tensor | float, kind: _PairLoss) -> Tensor:
    """Returns what is added to x of pairs with these corrections."""
    taken_off = correction if kind.is_corrected else torch.zeros_like(correction)
    return offset - taken_off
