"""Batch normalisation that keeps nothing but what it computes with.

Belongs here: `BatchNorm`. Does not belong here: where it stands in a tower (`tower`).

Letters: B rows, W width.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

MOMENTUM: Final = 0.1
EPSILON: Final = 1e-5


class BatchNorm(nn.Module):
    """Columns less their mean, divided by their deviation; of the batch in training, else of what training has seen.

    torch's own module counts batches in an integer beside the weights; a stored model holds float32 alone.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_var", torch.ones(width))

    def forward(self, inputs: Tensor, is_training: bool) -> Tensor:
        """Returns the normalised inputs [B, W]; a batch of one row, which has no deviation, by the running figures."""
        of_batch = is_training and len(inputs) > 1
        return functional.batch_norm(
            inputs, self.running_mean, self.running_var, self.weight, self.bias, of_batch, MOMENTUM, EPSILON
        )
