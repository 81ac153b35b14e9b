"""What stands between the product of two vectors and the loss, and may be learned: temperature, scale and shift.

Belongs here: the parameters and where they start. Does not belong here: the losses, which are given their values.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from dssm_assets.core.models.tower_spec import TowerSpec


class SimilarityScale(nn.Module):
    """1 / temperature, and |w| and b of |w| * similarity + b; only what is learned is a parameter."""

    def __init__(self, spec: TowerSpec) -> None:
        super().__init__()
        self._fixed = 1.0 / spec.temperature
        # Its logarithm moves by the same step whatever the temperature is, and cannot turn its sign.
        self.log_scale = nn.Parameter(torch.tensor(math.log(self._fixed))) if spec.learn_temperature else None
        self.weight = nn.Parameter(torch.tensor(1.0)) if spec.learn_scale else None
        self.bias = nn.Parameter(torch.tensor(0.0)) if spec.learn_scale else None

    def scale(self) -> Tensor | float:
        """Returns 1 / temperature: a number, or a tensor without dimensions where it is learned."""
        return self._fixed if self.log_scale is None else self.log_scale.exp()

    def affine(self) -> tuple[Tensor, Tensor] | None:
        """Returns |w| and b; None where they are not learned."""
        return None if self.weight is None or self.bias is None else (self.weight.abs(), self.bias)
