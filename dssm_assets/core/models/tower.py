"""One tower: dense layers from the features' pooled vectors to the output vector.

Belongs here: `Tower`. Does not belong here: embeddings (`embedding`) and what is compared with what (`two_tower`).

Letters: B rows, W input width, D output width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from dssm_assets.core.config.model import Norm, Similarity
from dssm_assets.core.models.tower_spec import TowerSpec

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


class Tower(nn.Module):
    """Blocks of Linear, norm, ReLU, dropout, then a bare Linear; of length 1 when the similarity is COSINE.

    Some columns of the input may be taste columns: the pooled history in the user tower, what shares its embeddings in the
    item tower. They have a dropout of their own, and may pass by the layers through a linear map without bias.
    """

    shared_columns: Tensor

    def __init__(self, width: int, spec: TowerSpec, generator: torch.Generator, shared_columns: Sequence[int] = ()) -> None:
        super().__init__()
        sizes = [width, *spec.hidden_units, spec.tower_dim]
        self.linears = nn.ModuleList(linear(a, b, generator) for a, b in pairwise(sizes))
        self.norms = nn.ModuleList(_norm(spec.norm, size) for size in spec.hidden_units)
        has_skip = spec.skip and len(shared_columns) > 0
        self.skip = linear(len(shared_columns), spec.tower_dim, generator, has_bias=False) if has_skip else None
        self.register_buffer("shared_columns", torch.tensor(list(shared_columns), dtype=torch.long), persistent=False)
        self._dropout, self._taste_dropout = spec.dropout, spec.embedding_dropout if len(shared_columns) else 0.0
        self._is_cosine = spec.similarity is Similarity.COSINE

    def forward(self, inputs: Tensor, dropout: torch.Generator | None) -> Tensor:
        """Returns the vectors [B, D] of inputs [B, W].

        Args:
            inputs: pooled feature vectors.
            dropout: source of the dropout's randomness; None switches dropout off, and batch norms to what they have seen.
        """
        if dropout is not None and self._taste_dropout > 0:
            kept = torch.ones_like(inputs)
            drawn = _kept(inputs.new_empty(len(inputs), len(self.shared_columns)), self._taste_dropout, dropout)
            inputs = inputs * kept.index_copy_(1, self.shared_columns, drawn)
        hidden = inputs
        for layer, norm in zip(self.linears, self.norms, strict=False):
            hidden = layer(hidden)
            hidden = norm(hidden, dropout is not None) if isinstance(norm, BatchNorm) else norm(hidden)
            hidden = functional.relu(hidden)
            if dropout is not None and self._dropout > 0:
                hidden = hidden * _kept(torch.empty_like(hidden), self._dropout, dropout)
        vectors: Tensor = self.linears[-1](hidden)
        if self.skip is not None:
            vectors = vectors + self.skip(inputs.index_select(1, self.shared_columns))
        return functional.normalize(vectors, dim=1) if self._is_cosine else vectors


def linear(width_in: int, width_out: int, generator: torch.Generator, *, has_bias: bool = True) -> nn.Linear:
    """Returns a linear map whose weights are drawn from the generator, not from torch's global one."""
    drawn: nn.Linear = nn.utils.skip_init(nn.Linear, width_in, width_out, bias=has_bias)  # type: ignore[no-untyped-call]
    bound = 1.0 / math.sqrt(width_in)
    with torch.no_grad():
        for weights in drawn.parameters():
            weights.uniform_(-bound, bound, generator=generator)
    return drawn


def _kept(values: Tensor, frac: float, generator: torch.Generator) -> Tensor:
    """Fills with 0 for a dropped share and with what keeps the mean for the others."""
    # 16 bits of chance a value: a quarter of the draws and a fifth of the time of bernoulli_; frac to within 1 / 65536.
    dropped = round(frac * 65536)
    words = torch.empty(-(-values.numel() // 4), dtype=torch.int64, device=values.device)
    words.random_(-(2**63), None, generator=generator)
    chance = words.view(torch.int16)[: values.numel()].view(values.shape)
    return values.copy_(chance >= dropped - 32768).mul_(65536 / (65536 - dropped))


def _norm(kind: Norm, width: int) -> nn.Module:
    if kind is Norm.BATCH:
        return BatchNorm(width)
    return nn.LayerNorm(width) if kind is Norm.LAYER else nn.Identity()
