"""Softmax cross entropy of each row's positive against shared negatives; the whole matrix of logits never exists.

For row i with positive p_i, the columns j that are not masked for it (in-batch, sampled and queued items alike) and the
hard negatives h that are its own:

    logit(i, j) = scale * (u_i . v_j) - correction_j
    loss = sum_i w_i * (log(sum over p_i, j, h of exp logit) - logit(i, p_i)) / sum_i w_i

With in-batch columns this is the cross entropy over logits [B, B + N] whose diagonal is the positive; the diagonal is
masked among the columns because the positive enters by itself.

A chunk of rows costs three products, an exponential and a sum; nothing else is as large as its logits. The scale
multiplies the users, and the rows' weights multiply the small results. Where the logits are known to be narrow
(`_middle_if_narrow`) no maximum is subtracted, and corrections multiply the columns' vectors. Logits are powers of two:
exp2 is two and a half times faster than exp.

In bfloat16 the logits are still products of float32, because a logit rounded to 8 bits is off by up to 1/32 at a
temperature of 0.1. Only the factors of the two products of the gradient are rounded.

Letters: B rows, C columns, H hard negatives, D vector width, R rows of a chunk.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from dssm_assets.core.models.losses.loss_terms import (
    Affine,
    LossTerms,
    RowChunk,
    at_least_float32,
    row_chunks,
    to_factor,
)
from dssm_assets.core.models.products import add_product, product

_LOG2_E = 1 / math.log(2)
_NARROW = 30.0
"""Logits are narrow if neither |scale * similarity| nor the distance of corrections from their middle exceeds this: sums
of exp(logit) then lie between exp(-60) and C * exp(60), which float32 can represent."""


def softmax_loss(
    user: Tensor,
    positive: Tensor,
    columns: Tensor,
    hard: Tensor,
    terms: LossTerms,
    scale: Tensor | float,
    affine: Affine | None = None,
) -> Tensor:
    """Returns the weighted mean of the rows' cross entropies, a scalar; arguments as in `registry.LossFunction`.

    `affine` is not used: a temperature is the same factor, and an offset cancels in a softmax.
    """
    with torch.autocast(user.device.type, enabled=False):
        vectors = [at_least_float32(tensor) for tensor in (user, positive, columns, hard)]
        loss: Tensor = _ChunkedSoftmax.apply(*vectors, scale, terms)  # type: ignore[no-untyped-call]
    return loss


class _ChunkedSoftmax(torch.autograd.Function):
    """Computes the gradient while the logits of a chunk exist, so that backward has nothing to recompute."""

    @staticmethod
    def forward(
        ctx: Any, user: Tensor, positive: Tensor, columns: Tensor, hard: Tensor, scale: Tensor | float, terms: LossTerms
    ) -> Tensor:
        middle = _middle_if_narrow(user, (positive, columns, hard), terms, scale)
        hard_rows = torch.from_numpy(terms.hard_rows).to(user.device)
        hard_user = user[hard_rows]  # [H, D]
        scaled = user * (scale * _LOG2_E)  # [B, D]
        positive_logit = (scaled * positive).sum(1) - _to_log2(terms.positive_correction, middle, user)  # [B]
        hard_logit = (scaled[hard_rows] * hard).sum(1) - _to_log2(terms.hard_correction, middle, user)  # [H]
        row_weight = (terms.weight / terms.weight.sum()).to(user.dtype)  # [B]
        own_sums = _log2_own_sums(positive_logit, hard_logit, hard_rows)
        sums, grad_user, grad_columns = _column_sums(scaled, columns, own_sums, row_weight, terms, middle)
        loss = (row_weight * (sums - positive_logit)).sum() / _LOG2_E
        positive_grad = row_weight * (torch.exp2(positive_logit - sums) - 1.0)
        hard_grad = row_weight[hard_rows] * torch.exp2(hard_logit - sums[hard_rows])
        grad_user += positive_grad[:, None] * positive
        grad_user.index_add_(0, hard_rows, hard_grad[:, None] * hard)
        grad_scale = (grad_user * user).sum() if isinstance(scale, Tensor) else None
        grad_positive, grad_hard = positive_grad[:, None] * user * scale, hard_grad[:, None] * hard_user * scale
        ctx.save_for_backward(grad_user * scale, grad_positive, grad_columns, grad_hard, grad_scale)
        return loss

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Any:
        return *(None if saved is None else saved * grad_outputs[0] for saved in ctx.saved_tensors), None


def _column_sums(
    scaled: Tensor, columns: Tensor, own_sums: Tensor, row_weight: Tensor, terms: LossTerms, middle: float | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns log2 of each row's sum of exponentials, and what the columns add to the gradients.

    Args:
        scaled: users times scale * log2(e) [B, D].
        columns: vectors of the columns [C, D].
        own_sums: log2 of each row's sum over its positive and its hard negatives [B].
        row_weight: of each row in the loss [B].
        middle: of the corrections if the logits are narrow, else None.

    Returns:
        With P the softmax and r_i the row weights: the sums [B], sum_j r_i P_ij v_j [B, D] and
        sum_i r_i P_ij scale * u_i [C, D].
    """
    correction = _to_log2(terms.column_correction, middle, columns)
    factor = None if middle is None else torch.exp2(-correction)  # [C]
    weighted = to_factor(columns if factor is None else columns * factor[:, None], terms)
    sums, grad_user = torch.empty_like(own_sums), torch.empty_like(scaled)
    grad_columns = columns.new_zeros(columns.shape[1], len(columns))  # [D, C]: the product is faster this way round
    by_column = columns.T.contiguous()  # [D, C]: so is this one
    buffer = columns.new_empty(min(terms.logits_chunk_rows, len(scaled)), len(columns))  # [R, C]
    for chunk in row_chunks(terms, len(columns), columns.device):
        rows = chunk.rows
        logits = product(scaled[rows], by_column, out=buffer[: rows.stop - rows.start])
        if factor is None:
            largest = _subtract_largest(logits, chunk, correction, own_sums[rows])
            powers = logits.exp2_()
            total = powers.sum(1).add_(torch.exp2(own_sums[rows] - largest))
            torch.add(largest, total.log2(), out=sums[rows])
        else:
            powers = logits.exp2_()
            chunk.fill_masked(powers)
            total = torch.mv(powers, factor).add_(torch.exp2(own_sums[rows]))
            torch.log2(total, out=sums[rows])
        weight = (row_weight[rows] / total)[:, None]  # [R, 1]
        rounded = to_factor(powers, terms)
        torch.mul(product(rounded, weighted), weight, out=grad_user[rows])
        add_product(grad_columns, (scaled[rows] * weight).T, rounded)
    column_factor = torch.ones_like(correction) if factor is None else factor
    # Written as rows of [C, D] at once: a transposed view would cost every later reader strides of D.
    return sums, grad_user, torch.mul(grad_columns.T, (column_factor / _LOG2_E)[:, None], out=torch.empty_like(columns))


def _subtract_largest(products: Tensor, chunk: RowChunk, correction: Tensor, own_sums: Tensor) -> Tensor:
    """Turns products into logits less the largest of their row, in place, and returns the largest [R]."""
    chunk.fill_masked(products.sub_(correction), -torch.inf)
    largest = torch.maximum(products.amax(1), own_sums) if products.shape[1] else own_sums
    products.sub_(largest[:, None])
    return largest


def _log2_own_sums(positive_logit: Tensor, hard_logit: Tensor, hard_rows: Tensor) -> Tensor:
    """Returns log2 of each row's sum over its positive and its hard negatives [B]."""
    largest = positive_logit.scatter_reduce(0, hard_rows, hard_logit, "amax")
    total = torch.exp2(positive_logit - largest).index_add_(0, hard_rows, torch.exp2(hard_logit - largest[hard_rows]))
    return largest + total.log2()


def _to_log2(correction: Tensor, middle: float | None, like: Tensor) -> Tensor:
    """Returns corrections less their middle, in powers of two and in the number format of the vectors."""
    return (correction.to(like.dtype) - (middle or 0.0)) * _LOG2_E


def _middle_if_narrow(user: Tensor, others: tuple[Tensor, ...], terms: LossTerms, scale: Tensor | float) -> float | None:
    """Returns the middle of all corrections if no logit can be far from it, else None.

    No similarity exceeds the product of the largest lengths, so narrow logits are known without computing them.
    """
    corrections = torch.cat([terms.positive_correction, terms.column_correction, terms.hard_correction])
    lowest, highest = corrections.aminmax()
    lengths = [torch.linalg.vector_norm(vectors, dim=1).amax() for vectors in (user, *others) if len(vectors)]
    bound = lengths[0] * torch.stack(lengths[1:]).amax() * scale
    low, high, far = torch.stack([lowest.double(), highest.double(), bound.double().abs()]).tolist()
    return (low + high) / 2 if far <= _NARROW and (high - low) / 2 <= _NARROW else None
