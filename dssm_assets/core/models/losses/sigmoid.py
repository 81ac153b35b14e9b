"""Binary cross entropy of every pair by itself.

    x(i, j) = scale * (|w| * (u_i . v_j) + b) - correction_j         w = 1 and b = 0 unless they are learned
    loss_i = log(1 + exp(-x(i, p_i))) + sum_j log(1 + exp(x(i, j))) / n_i

The logQ correction is an offset of the logit: the best x of a pair is the log of how often it is a positive over how
often it is a negative, so popular negatives push x down by the log of their expected count. What remains after the
correction is what the towers should learn.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import softplus

from dssm_assets.core.models.losses.loss_terms import Affine, LossTerms
from dssm_assets.core.models.losses.pairs import PairLoss, mean_of_pairs


def sigmoid_loss(
    user: Tensor,
    positive: Tensor,
    columns: Tensor,
    hard: Tensor,
    terms: LossTerms,
    scale: Tensor | float,
    affine: Affine | None = None,
) -> Tensor:
    """Returns the weighted mean of the rows' binary cross entropy, a scalar; arguments as in `registry.LossFunction`."""
    slope, offset = (scale, 0.0) if affine is None else (affine[0] * scale, affine[1] * scale)
    return mean_of_pairs((user, positive, columns, hard), terms, slope, offset, _SIGMOID)


def _log1p_exp(x: Tensor) -> Tensor:
    return softplus(x, threshold=50.0)  # beyond the threshold x itself, which float64 cannot tell from it


_SIGMOID = PairLoss(lambda x: _log1p_exp(-x), _log1p_exp, uses_logq=True)
