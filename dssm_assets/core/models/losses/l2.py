"""Squared distance of every pair's similarity from its label.

    s(i, j) = |w| * (u_i . v_j) + b         w = 1 and b = 0 unless they are learned
    loss_i = (1 - s(i, p_i))^2 + sum_j s(i, j)^2 / n_i

There is no logQ correction, because a distance from 1 has no offset that a correction could be. There is no temperature,
because it would only move the two targets.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dssm_assets.core.models.losses.loss_terms import Affine, LossTerms
from dssm_assets.core.models.losses.pairs import PairLoss, mean_of_pairs


def l2_loss(
    user: Tensor,
    positive: Tensor,
    columns: Tensor,
    hard: Tensor,
    terms: LossTerms,
    scale: Tensor | float,
    affine: Affine | None = None,
) -> Tensor:
    """Returns the weighted mean of the rows' squared distances, a scalar; arguments as in `registry.LossFunction`.

    Scale and corrections are not used.
    """
    slope, offset = (1.0, 0.0) if affine is None else affine
    return mean_of_pairs((user, positive, columns, hard), terms, slope, offset, _L2)


_L2 = PairLoss(lambda x: (1.0 - x).square(), torch.square, uses_logq=False)
