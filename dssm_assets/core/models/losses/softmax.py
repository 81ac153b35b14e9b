"""Softmax cross entropy of each row's positive against shared negatives; the whole matrix of logits never exists.

For row i with positive p_i, the columns j that are not masked for it (in-batch, sampled and queued items alike) and the
hard negatives h that are its own:

    logit(i, j) = scale * (u_i . v_j) - correction_j
    loss = sum_i w_i * (log(sum over p_i, j, h of exp logit) - logit(i, p_i)) / sum_i w_i

With in-batch columns this is the cross entropy over logits [B, B + N] whose diagonal is the positive; the diagonal is
masked among the columns because the positive enters by itself.

Letters: B rows, C columns, H hard negatives, D vector width.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from dssm_assets.core.models.losses.loss_terms import (
    Affine,
    LossTerms,
    at_least_float32,
    compute_in_chunks,
    counted_cells,
    hard_by_row,
    mask_cells,
)


def cross_entropy(
    user: Tensor, positive: Tensor, columns: Tensor, hard: Tensor, terms: LossTerms, scale: Tensor | float
) -> Tensor:
    """Returns what `softmax_loss` is, by the whole matrix of logits [B, 1 + C + H]: its definition, for tests."""
    own = scale * (user * positive).sum(1) - terms.positive_correction
    corrections = torch.cat([terms.column_correction, terms.hard_correction])
    others = scale * (user @ torch.cat([columns, hard]).T) - corrections
    logits = torch.cat([own[:, None], others.masked_fill(~counted_cells(terms), -torch.inf)], dim=1)
    losses = nn.functional.cross_entropy(logits, torch.zeros(len(user), dtype=torch.int64), reduction="none")
    return (losses * terms.weight).sum() / terms.weight.sum()


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
        user, positive, columns, hard = (at_least_float32(vectors) for vectors in (user, positive, columns, hard))
        scaled = user * scale
        own = (scaled * positive).sum(1) - terms.positive_correction  # [B]
        own_hard = (scaled[terms.hard_rows] * hard).sum(1) - terms.hard_correction  # [H]
        of_rows = (scaled, own[:, None], hard_by_row(own_hard, terms, fill=-torch.inf))
        losses = compute_in_chunks(partial(_losses, correction=terms.column_correction), of_rows, columns, terms)
        return (losses * terms.weight).sum() / terms.weight.sum()


def _losses(scaled: Tensor, own: Tensor, hard: Tensor, columns: Tensor, masked: Tensor, *, correction: Tensor) -> Tensor:
    """Returns the cross entropy of some rows [R], by the logits of their positives [R, 1] and hard negatives [R, any]."""
    others = mask_cells((scaled @ columns.T).sub_(correction), masked, -torch.inf)
    target = torch.zeros(len(own), dtype=torch.int64, device=own.device)
    return nn.functional.cross_entropy(torch.cat([own, others, hard], dim=1), target, reduction="none")
