"""The weighted mean over pairs of user and item, for any loss of one pair: a row's item has label 1, a negative label 0.

For row i with positive p_i and its n_i negatives j (the columns that are not masked for it and its own hard negatives):

    x(i, j) = slope * (u_i . v_j) + offset - correction_j
    loss_i = positive_loss(x(i, p_i)) + sum_j negative_loss(x(i, j)) / n_i
    loss = sum_i w_i * loss_i / sum_i w_i

A row's negatives have total weight 1, like the positive, whatever their number. A row without negatives has the loss of
its positive alone.

Letters: B rows, C columns (the shared negatives), H hard negatives, D vector width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dssm_assets.core.models.losses.loss_terms import (
    LossTerms,
    at_least_float32,
    compute_in_chunks,
    count_negatives,
    mask_cells,
)


@dataclass(frozen=True)
class PairLoss:
    """The loss of one pair as a function of x.

    Attributes:
        positive_loss: of a row and its item.
        negative_loss: of a row and a negative.
        uses_logq: whether the logQ correction is subtracted from x.
    """

    positive_loss: Callable[[Tensor], Tensor]
    negative_loss: Callable[[Tensor], Tensor]
    uses_logq: bool


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
    logq = 1.0 if pair_loss.uses_logq else 0.0
    with torch.autocast(vectors[0].device.type, enabled=False):
        user, positive, columns, hard = (at_least_float32(tensor) for tensor in vectors)
        scaled = user * slope

        def sum_losses(scaled: Tensor, columns: Tensor, masked: Tensor) -> Tensor:
            x = scaled @ columns.T + (offset - logq * terms.column_correction)
            return mask_cells(pair_loss.negative_loss(x), masked, 0.0).sum(1)

        own = pair_loss.positive_loss((scaled * positive).sum(1) + offset - logq * terms.positive_correction)
        of_hard = pair_loss.negative_loss((scaled[terms.hard_rows] * hard).sum(1) + offset - logq * terms.hard_correction)
        negatives = compute_in_chunks(sum_losses, (scaled,), columns, terms)
        negatives = negatives.index_add(0, torch.from_numpy(terms.hard_rows).to(user.device), of_hard)
        losses = own + negatives / count_negatives(terms, len(columns)).clamp(min=1).to(user.device)
        return (losses * terms.weight).sum() / terms.weight.sum()
