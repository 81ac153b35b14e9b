"""The device, number format and processes of a fit.

The methods of `Ranks` are written for a single process. `extras/several_processes/process_group.py` overrides them, so the
trainer and the loop need not know the number of processes.

Letters: M rows of all processes, D vector width.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from dssm_assets.core.arrays.ragged import IntArray
from dssm_assets.core.config.training import Device, Precision
from dssm_assets.core.errors import ConfigError, Fault
from dssm_assets.core.models.embedding import EmbeddingTables
from dssm_assets.core.models.tower_spec import TowerSpec
from dssm_assets.core.models.two_tower import TwoTower
from dssm_assets.core.training.optimisers import RowGradients


class Ranks:
    """The position of this process among the processes of a fit. In this class there is only one.

    Attributes:
        rank: number of this process, from 0.
        count: number of processes.
    """

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def rows(self, count: int) -> IntArray:
        """Returns the rows, out of `count`, that this process computes, ascending."""
        return np.arange(self.rank, count, self.count, dtype=np.int64)

    def new_towers(self, spec: TowerSpec, generator: torch.Generator, *, shard_tables: bool) -> TwoTower:
        """Returns towers with random weights. With `shard_tables`, each process has a shard of every table."""
        return TwoTower(spec, generator)

    def seed_dropout(self, generator: torch.Generator, seed: int, step: int) -> None:
        """Gives each process its own dropout in this step. A single process keeps its generator."""

    def gather(self, vectors: Tensor, count: int) -> Tensor:
        """Gathers the vectors of all `count` rows [M, D] from the processes. Gradients flow back."""
        return vectors

    def gather_items(self, items: Tensor, num_shared: int) -> Tensor:
        """Gathers the vectors of all `num_shared` shared items; the vectors of this process's hard negatives follow."""
        return items

    def sum_gradients(self, module: nn.Module) -> None:
        """Replaces the gradient of each parameter by its sum over the processes."""

    def sum_row_gradients(self, found: Sequence[RowGradients], tables: EmbeddingTables) -> list[RowGradients]:
        """Sums row gradients over the processes. Returns the rows that this process updates; `found` are its own gradients."""
        return list(found)

    def sum_loss(self, loss: Tensor) -> float:
        """Adds up the parts of a batch's loss from all processes."""
        return float(loss.item())

    def from_first(self, values: Sequence[float]) -> list[float]:
        """Copies the first process's numbers to every process."""
        return list(values)

    def is_same(self, value: float) -> bool:
        """Returns whether all processes have the same number."""
        return True

    def wait(self) -> None:
        """Waits for all processes."""


SINGLE_PROCESS: Final = Ranks()


@dataclass(frozen=True)
class ComputeContext:
    """The device, number format and processes of a fit.

    Attributes:
        device: device of all weights.
        bfloat16: whether dense layers multiply in bfloat16; sums and weights stay float32.
        ranks: the processes that share every batch.
    """

    device: torch.device
    bfloat16: bool = False
    ranks: Ranks = SINGLE_PROCESS

    def products(self) -> AbstractContextManager[object]:
        """Inside the block, dense layers multiply in this number format."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16) if self.bfloat16 else nullcontext()


def device_of(choice: Device) -> torch.device:
    """Returns the configured device.

    Raises:
        ConfigError: the device is CUDA and the machine has none.
    """
    has_cuda = torch.cuda.is_available()
    if choice is Device.CUDA and not has_cuda:
        got = "a machine without a CUDA device"
        raise ConfigError(Fault("training.device", "a CUDA device", got, "choose auto or cpu"))
    return torch.device("cuda" if has_cuda and choice is not Device.CPU else "cpu")


def is_bfloat16(choice: Precision, device: torch.device) -> bool:
    """Returns whether dense layers multiply in bfloat16. `auto` says yes if the processor has instructions for it."""
    if choice is not Precision.AUTO:
        return choice is Precision.BFLOAT16
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return any(torch.cpu.get_capabilities().get(name) for name in ("avx512_bf16", "amx_bf16"))
