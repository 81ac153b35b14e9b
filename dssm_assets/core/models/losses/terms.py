"""What every loss needs beside the vectors.

Belongs here: the terms and their move to a device. Does not belong here: the losses themselves (`sampled_softmax`,
`point_wise`), finding masks (`masks`) and corrections (`log_q`).

Letters: B rows, C columns, H hard negatives.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from dssm_assets.core.models.bags import IntArray
from dssm_assets.core.models.losses.masks import MaskedPairs


def _no_rows() -> IntArray:
    return np.zeros(0, np.int64)


def _no_numbers() -> Tensor:
    return torch.zeros(0)


@dataclass(frozen=True)
class LossTerms:
    """Corrections, weights and masks of one batch.

    Every row meets its positive, every column that is not masked for it, and the hard negatives that are its own.
    Index arrays stay in numpy; the tensors lie where the vectors lie.

    Attributes:
        positive_correction: what is taken off the logit of each row's positive [B].
        column_correction: what is taken off the logits of each column, columns in the order of the logits [C].
        weight: weight of each row in the loss, above 0 [B].
        masked: cells [B, C] that do not count.
        logits_rows: rows of logits held at once; changes memory and speed, not the result.
        hard_rows: the one row that each hard negative counts for, in any order [H].
        hard_correction: what is taken off the logit of each hard negative [H].
        bfloat16: whether factors of products are rounded to bfloat16; sums and exponentials are float32 either way.
    """

    positive_correction: Tensor
    column_correction: Tensor
    weight: Tensor
    masked: MaskedPairs
    logits_rows: int
    hard_rows: IntArray = field(default_factory=_no_rows)
    hard_correction: Tensor = field(default_factory=_no_numbers)
    bfloat16: bool = False

    def to(self, device: torch.device) -> LossTerms:
        """Returns the same terms with their tensors on the device."""
        return replace(
            self,
            positive_correction=self.positive_correction.to(device),
            column_correction=self.column_correction.to(device),
            weight=self.weight.to(device),
            hard_correction=self.hard_correction.to(device),
        )
