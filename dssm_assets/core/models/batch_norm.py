"""Batch normalisation that keeps nothing but what it computes with.

Belongs here: `BatchNorm`. Does not belong here: where it stands in a tower (`tower`).

Where several processes share a batch, its figures are those of all rows: sums are exchanged, forward and backward, by a
function that the processes' owner sets (`add_up`).

Letters: B rows, W width.
"""

from __future__ import annotations

from collections.abc import Callable
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
        self.add_up: Callable[[Tensor], Tensor] | None = None
        """Sums a tensor over the processes that share a batch, and its gradient too; None: this one has all rows."""
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_var", torch.ones(width))

    def forward(self, inputs: Tensor, is_training: bool) -> Tensor:
        """Returns the normalised inputs [B, W]; a batch of one row, which has no deviation, by the running figures."""
        if is_training and self.add_up is not None:
            return self._by_all_rows(inputs, self.add_up)
        of_batch = is_training and len(inputs) > 1
        return functional.batch_norm(
            inputs, self.running_mean, self.running_var, self.weight, self.bias, of_batch, MOMENTUM, EPSILON
        )

    def _by_all_rows(self, inputs: Tensor, add_up: Callable[[Tensor], Tensor]) -> Tensor:
        """Returns this process's rows normalised by the figures of all processes' rows."""
        values = inputs.float()
        counted = add_up(torch.cat([values.sum(0), values.new_tensor([float(len(values))])]))
        count = int(counted[-1])
        if count < 2:
            return self.forward(inputs, is_training=False)
        mean = counted[:-1] / count
        # Of the differences from the mean: a sum of squares less a square of sums would lose its digits.
        variance = add_up((values - mean).square().sum(0)) / count
        with torch.no_grad():
            self.running_mean.lerp_(mean, MOMENTUM)
            self.running_var.lerp_(variance * (count / (count - 1)), MOMENTUM)
        return (values - mean) * torch.rsqrt(variance + EPSILON) * self.weight + self.bias
