"""One tower: dense layers and a skip connection turn the features' pooled vectors into the output vector.

Letters: B rows, W input width, D output width.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
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
    """Batch normalisation: uses the batch's mean and variance in training, otherwise their running averages.

    torch's own module also counts batches in an integer buffer, but a stored model may only have float32 tensors.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.add_up: Callable[[Tensor], Tensor] | None = None
        """Sums a tensor and its gradient over the processes that share a batch. None: this process has all rows."""
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_var", torch.ones(width))

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns the normalised inputs [B, W]. A batch of one row has no variance, so it uses the running averages."""
        if self.training and self.add_up is not None:
            return self._normalise_shared(inputs, self.add_up)
        return self._normalise(inputs, self.training and len(inputs) > 1)

    def _normalise(self, inputs: Tensor, uses_batch: bool) -> Tensor:
        return functional.batch_norm(
            inputs, self.running_mean, self.running_var, self.weight, self.bias, uses_batch, MOMENTUM, EPSILON
        )

    def _normalise_shared(self, inputs: Tensor, add_up: Callable[[Tensor], Tensor]) -> Tensor:
        """Returns this process's rows normalised by the mean and variance of all processes' rows."""
        values = inputs.float()
        sums = add_up(torch.cat([values.sum(0), values.new_tensor([float(len(values))])]))
        count = int(sums[-1])
        if count < 2:
            return self._normalise(inputs, uses_batch=False)
        mean = sums[:-1] / count
        # Summed from differences to the mean; the sum of squares minus the squared sum would lose digits.
        variance = add_up((values - mean).square().sum(0)) / count
        with torch.no_grad():
            self.running_mean.lerp_(mean, MOMENTUM)
            self.running_var.lerp_(variance * (count / (count - 1)), MOMENTUM)
        return (values - mean) * torch.rsqrt(variance + EPSILON) * self.weight + self.bias


class Tower(nn.Module):
    """Blocks of Linear, norm, ReLU and dropout, then a Linear. Vectors have length 1 if the similarity is COSINE.

    Shared columns are input columns with an embedding that both towers read: the pooled history, and the item features with
    the same embedding. They have their own dropout rate, and with `spec.skip` also a linear map straight to the output.
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
        self._dropout, self._shared_dropout = spec.dropout, spec.embedding_dropout if len(shared_columns) else 0.0
        self._is_cosine = spec.similarity is Similarity.COSINE

    def forward(self, inputs: Tensor, dropout: torch.Generator | None) -> Tensor:
        """Returns the vectors [B, D] of inputs [B, W].

        Args:
            dropout: source of the dropout's randomness. None outside of training: then there is no dropout, and batch norms use
                their running averages.
        """
        self.train(dropout is not None)
        shared = drop(inputs.index_select(1, self.shared_columns), self._shared_dropout, dropout)
        hidden = inputs.index_copy(1, self.shared_columns, shared) if self._shared_dropout else inputs
        for layer, norm in zip(self.linears, self.norms, strict=False):
            hidden = drop(functional.relu(norm(layer(hidden))), self._dropout, dropout)
        vectors: Tensor = self.linears[-1](hidden)
        if self.skip is not None:
            vectors = vectors + self.skip(shared)
        return functional.normalize(vectors, dim=1) if self._is_cosine else vectors


def align_skips(
    user: nn.Linear | None, user_columns: Sequence[Hashable], item: nn.Linear | None, item_columns: Sequence[Hashable]
) -> None:
    """Starts both towers' skip connections as the same map, so that a history is near its own items from the first step.

    Each coordinate of the shared embedding gets its own output, while there are outputs left. The poolings of one history are
    averaged. Without such a start, training must first find a common space, and this takes long for histories of hundreds of
    items. On a year of grocery purchases this start alone is worth a tenth of the hit rate (docs/what_was_learned.md).

    Example: a history is pooled twice over one embedding of width 2, which an item feature shares; there are 3 outputs. The
    item's skip is [[1, 0], [0, 1], [0, 0]], the user's [[.5, 0, .5, 0], [0, .5, 0, .5], [0, 0, 0, 0]].

    Args:
        user, item: the towers' skips; if one is None, nothing is done.
        user_columns, item_columns: a name per input column; equal names mean the same coordinate.
    """
    if user is None or item is None:
        return
    of_user = set(user_columns)
    outputs = {name: output for output, name in enumerate(dict.fromkeys(name for name in item_columns if name in of_user))}
    with torch.no_grad():
        for skip, columns in ((user, user_columns), (item, item_columns)):
            counts = Counter(columns)
            skip.weight.zero_()
            for column, name in enumerate(columns):
                if outputs.get(name, skip.out_features) < skip.out_features:
                    skip.weight[outputs[name], column] = 1.0 / counts[name]


def linear(width_in: int, width_out: int, generator: torch.Generator, *, has_bias: bool = True) -> nn.Linear:
    """Returns a linear layer whose initial weights come from the given generator."""
    with torch.random.fork_rng(devices=[]):
        drawn = nn.Linear(width_in, width_out, bias=has_bias)
    bound = 1.0 / math.sqrt(width_in)
    with torch.no_grad():
        for weights in drawn.parameters():
            weights.uniform_(-bound, bound, generator=generator)
    return drawn


def drop(values: Tensor, frac: float, generator: torch.Generator | None) -> Tensor:
    """Applies dropout with random bits of the generator. Without a generator the values stay.

    `nn.functional.dropout` draws from torch's global generator, so a fit would depend on other code.
    """
    if generator is None or frac == 0:
        return values
    # 16 random bits per value round frac to 1 / 65536, and take a fifth of the time of bernoulli_.
    dropped = round(frac * 65536)
    words = torch.empty(-(-values.numel() // 4), dtype=torch.int64, device=values.device).random_(
        -(2**63), None, generator=generator
    )
    chance = words.view(torch.int16)[: values.numel()].view(values.shape)
    return values * torch.ge(chance, dropped - 32768).to(values.dtype).mul_(65536 / (65536 - dropped))


def _norm(kind: Norm, width: int) -> nn.Module:
    if kind is Norm.BATCH:
        return BatchNorm(width)
    return nn.LayerNorm(width) if kind is Norm.LAYER else nn.Identity()
