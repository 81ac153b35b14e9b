"""Which function each name in `model.loss` means. A new loss is one file next to this and one line here.

From outside the package: `LOSSES["my_loss"] = my_loss`, in a plug-in (docs/platform.md). `model.loss: my_loss` then names it.
"""

from __future__ import annotations

from typing import Final, Protocol

from torch import Tensor

from dssm_assets.core.models.losses.l2 import l2_loss
from dssm_assets.core.models.losses.loss_terms import Affine, LossTerms
from dssm_assets.core.models.losses.sigmoid import sigmoid_loss
from dssm_assets.core.models.losses.softmax import softmax_loss


class LossFunction(Protocol):
    """The signature of every loss."""

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
        """Returns the weighted mean of the rows' losses, a scalar that gradients flow back from.

        Args:
            user: vectors of the rows' users [B, D].
            positive: vectors of the rows' own items [B, D].
            columns: vectors of the negatives that all rows share: in-batch, sampled and queued items [C, D].
            hard: vectors of the hard negatives, each of which counts for one row (`terms.hard_rows`) [H, D].
            scale: 1 / temperature, which multiplies the similarity; a scalar tensor if it is learned.
            affine: |w| and b of the similarity |w| * (u . v) + b; None unless `model.learn_scale` is on.
        """


LOSSES: Final[dict[str, LossFunction]] = {
    "softmax": softmax_loss,
    "sigmoid": sigmoid_loss,
    "l2": l2_loss,
}
