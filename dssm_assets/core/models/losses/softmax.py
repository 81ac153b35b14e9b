"""Softmax of each row's positive against shared negatives, without ever holding the whole matrix of logits.

Belongs here: the loss as a function of embeddings. Does not belong here: who the negatives are, with what probability
they were drawn (`log_q`), and which do not count (`masks`).

For row i with positive p_i, the columns j that are not masked for it (in-batch, sampled and queued items alike) and the
hard negatives h that are its own:

    logit(i, j) = scale * (u_i . v_j) - correction_j
    loss = sum_i w_i * (log(sum over p_i, j, h of exp logit) - logit(i, p_i)) / sum_i w_i

With in-batch columns this is the cross entropy over logits [B, B + N] whose diagonal is the positive; the diagonal is
masked among the columns because the positive enters by itself.

A chunk costs three products, an exponential and a sum, and nothing else that is as large as its logits: the scale
multiplies the users, the rows' shares in the loss multiply the small results, and where the logits are known to be
narrow (`_middle`) nothing is taken off them: no maximum, and corrections multiply the columns' vectors. Logits are
counted in powers of two, which processors raise two and a half times faster than powers of e.

In bfloat16 the logits are products of float32 all the same, because one rounded to 8 bits is off by up to 1/32 at a
temperature of 0.1; the factors of the two products of the gradient are rounded.

Letters: B rows, C columns, H hard negatives, D vector width, R rows held at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dssm_assets.core.arrays.ragged import IntArray
from dssm_assets.core.models.losses.loss_terms import LossTerms


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
    """Yields the rows of the batch in order, `terms.logits_chunk_rows` at a time."""
    num_rows = len(terms.weight)
    masked = torch.from_numpy(_flat(terms, num_columns)).to(device)
    begins = np.arange(0, num_rows, terms.logits_chunk_rows)
    bounds = np.searchsorted(terms.masked.rows, np.append(begins, num_rows)).tolist()
    for index, begin in enumerate(begins.tolist()):
        rows = slice(begin, min(begin + terms.logits_chunk_rows, num_rows))
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


_LOG2_E = 1 / math.log(2)
_NARROW = 30.0
"""Largest |scale * similarity|, and largest distance of corrections from their middle, that count as narrow: sums of
exp(logit) then lie between exp(-60) and C * exp(60), which float32 holds."""


def sampled_softmax(
    user: Tensor, positive: Tensor, columns: Tensor, hard: Tensor, terms: LossTerms, scale: Tensor | float
) -> Tensor:
    """Returns the weighted mean loss, a scalar.

    Args:
        user: vectors of the rows' users [B, D].
        positive: vectors of the rows' own items [B, D].
        columns: vectors of the negatives, shared by all rows [C, D].
        hard: vectors of the negatives that one row each has to itself [H, D].
        terms: corrections, weights and masks.
        scale: 1 / temperature, multiplies the similarity; a tensor of no dimension may learn.
    """
    with torch.autocast(user.device.type, enabled=False):
        vectors = [full(tensor) for tensor in (user, positive, columns, hard)]
        loss: Tensor = _ChunkedSoftmax.apply(*vectors, scale, terms)  # type: ignore[no-untyped-call]
    return loss


class _ChunkedSoftmax(torch.autograd.Function):
    """Takes the gradient while the logits of a chunk exist, so that backward has nothing to recompute."""

    @staticmethod
    def forward(
        ctx: Any, user: Tensor, positive: Tensor, columns: Tensor, hard: Tensor, scale: Tensor | float, terms: LossTerms
    ) -> Tensor:
        middle = _middle(user, (positive, columns, hard), terms, scale)
        hard_rows = torch.from_numpy(terms.hard_rows).to(user.device)
        hard_user = user[hard_rows]  # [H, D]
        scaled = user * (scale * _LOG2_E)  # [B, D]
        own = (scaled * positive).sum(1) - _powers(terms.positive_correction, middle, user)  # [B]
        alone = (scaled[hard_rows] * hard).sum(1) - _powers(terms.hard_correction, middle, user)  # [H]
        share = (terms.weight / terms.weight.sum()).to(user.dtype)  # [B]
        others = _log2_sums(own, alone, hard_rows)
        sums, grad_user, grad_columns = _column_sums(scaled, columns, others, share, terms, middle)
        loss = (share * (sums - own)).sum() / _LOG2_E
        grad_own = share * (torch.exp2(own - sums) - 1.0)
        grad_alone = share[hard_rows] * torch.exp2(alone - sums[hard_rows])
        grad_user += grad_own[:, None] * positive
        grad_user.index_add_(0, hard_rows, grad_alone[:, None] * hard)
        grad_scale = (grad_user * user).sum() if isinstance(scale, Tensor) else None
        grad_positive, grad_hard = grad_own[:, None] * user * scale, grad_alone[:, None] * hard_user * scale
        ctx.save_for_backward(grad_user * scale, grad_positive, grad_columns, grad_hard, grad_scale)
        return loss

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Any:
        return *(None if saved is None else saved * grad_outputs[0] for saved in ctx.saved_tensors), None


def _column_sums(
    scaled: Tensor, columns: Tensor, others: Tensor, share: Tensor, terms: LossTerms, middle: float | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns log2 of each row's sum over everything [B], and what the columns' share of it is worth to both sides.

    Args:
        scaled: users times scale * log2(e) [B, D].
        columns: vectors of the columns [C, D].
        others: log2 of each row's sum over what is not a column [B].
        share: of each row in the loss [B].
        terms: corrections and masks.
        middle: of the corrections, if the logits are narrow.

    Returns:
        The sums, sum_j share_i P_ij v_j [B, D] and sum_i share_i P_ij scale * u_i [C, D], P the softmax.
    """
    correction = _powers(terms.column_correction, middle, columns)
    factor = None if middle is None else torch.exp2(-correction)  # [C]
    weighted = rounded(columns if factor is None else columns * factor[:, None], terms)
    sums, to_users = torch.empty_like(others), torch.empty_like(scaled)
    to_columns = columns.new_zeros(columns.shape[1], len(columns))  # [D, C]: the product is faster this way round
    held = columns.new_empty(min(terms.logits_chunk_rows, len(scaled)), len(columns))  # [R, C]
    for chunk in row_chunks(terms, len(columns), columns.device):
        rows = chunk.rows
        powers = torch.mm(scaled[rows], columns.T, out=held[: rows.stop - rows.start])
        if factor is None:
            top = _take_top(powers, chunk, correction, others[rows])
            total = powers.exp2_().sum(1).add_(torch.exp2(others[rows] - top))
            torch.add(top, total.log2(), out=sums[rows])
        else:
            chunk.clear(powers.exp2_())
            total = torch.mv(powers, factor).add_(torch.exp2(others[rows]))
            torch.log2(total, out=sums[rows])
        part = (share[rows] / total)[:, None]  # [R, 1]
        counted = rounded(powers, terms)
        torch.mul(torch.mm(counted, weighted), part, out=to_users[rows])
        add_product(to_columns, (scaled[rows] * part).T, counted)
    each = torch.ones_like(correction) if factor is None else factor
    # Written as rows of [C, D] at once: whatever reads it later would pay for strides of D.
    return sums, to_users, torch.mul(to_columns.T, (each / _LOG2_E)[:, None], out=torch.empty_like(columns))


def _take_top(powers: Tensor, chunk: RowChunk, correction: Tensor, others: Tensor) -> Tensor:
    """Makes logits of products in place, takes the largest of each row off them and returns it [R]."""
    chunk.clear(powers.sub_(correction), -torch.inf)
    top = torch.maximum(powers.amax(1), others) if powers.shape[1] else others
    powers.sub_(top[:, None])
    return top


def _log2_sums(own: Tensor, alone: Tensor, hard_rows: Tensor) -> Tensor:
    """Returns log2 of each row's sum over its positive and its hard negatives [B]."""
    top = own.scatter_reduce(0, hard_rows, alone, "amax")
    total = torch.exp2(own - top).index_add_(0, hard_rows, torch.exp2(alone - top[hard_rows]))
    return top + total.log2()


def _powers(correction: Tensor, middle: float | None, like: Tensor) -> Tensor:
    """Returns corrections less their middle, in powers of two and in the number format of the vectors."""
    return (correction.to(like.dtype) - (middle or 0.0)) * _LOG2_E


def _middle(user: Tensor, others: tuple[Tensor, ...], terms: LossTerms, scale: Tensor | float) -> float | None:
    """Returns the middle of all corrections if no logit can be far from it, else None.

    No similarity is above the product of the largest lengths, so narrow logits need no look at the logits.
    """
    corrections = torch.cat([terms.positive_correction, terms.column_correction, terms.hard_correction])
    lowest, highest = corrections.aminmax()
    lengths = [torch.linalg.vector_norm(vectors, dim=1).amax() for vectors in (user, *others) if len(vectors)]
    reach = lengths[0] * torch.stack(lengths[1:]).amax() * scale
    low, high, far = torch.stack([lowest.double(), highest.double(), reach.double().abs()]).tolist()
    return (low + high) / 2 if far <= _NARROW and (high - low) / 2 <= _NARROW else None
