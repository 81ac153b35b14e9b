"""One tower: dense layers from the features' pooled vectors to the output vector.

Belongs here: `Tower`. Does not belong here: embeddings (`embedding`) and what is compared with what (`two_tower`).

Letters: B rows, W input width, D output width.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from dssm_assets.core.model_config import Similarity
from dssm_assets.core.models.tower_spec import TowerSpec


class Tower(nn.Module):
    """Blocks of Linear, LayerNorm, ReLU, dropout, then a bare Linear; of length 1 when the similarity is COSINE."""

    def __init__(self, width: int, spec: TowerSpec, generator: torch.Generator) -> None:
        super().__init__()
        sizes = [width, *spec.hidden_units, spec.output_dim]
        self.linears = nn.ModuleList(_linear(a, b, generator) for a, b in pairwise(sizes))
        self.norms = nn.ModuleList(nn.LayerNorm(size) for size in spec.hidden_units)
        self._dropout = spec.dropout
        self._is_cosine = spec.similarity is Similarity.COSINE

    def forward(self, inputs: Tensor, dropout: torch.Generator | None) -> Tensor:
        """Returns the vectors [B, D] of inputs [B, W].

        Args:
            inputs: pooled feature vectors.
            dropout: source of the dropout's randomness; None switches dropout off.
        """
        hidden = inputs
        for linear, norm in zip(self.linears, self.norms, strict=False):
            hidden = functional.relu(norm(linear(hidden)))
            if dropout is not None and self._dropout > 0:
                kept = 1.0 - self._dropout
                hidden = hidden * torch.empty_like(hidden).bernoulli_(kept, generator=dropout).div_(kept)
        vectors: Tensor = self.linears[-1](hidden)
        return functional.normalize(vectors, dim=1) if self._is_cosine else vectors


def _linear(width_in: int, width_out: int, generator: torch.Generator) -> nn.Linear:
    # The constructor's own initialisation would draw from the global generator.
    linear: nn.Linear = nn.utils.skip_init(nn.Linear, width_in, width_out)  # type: ignore[no-untyped-call]
    bound = 1.0 / math.sqrt(width_in)
    with torch.no_grad():
        linear.weight.uniform_(-bound, bound, generator=generator)
        linear.bias.uniform_(-bound, bound, generator=generator)
    return linear
