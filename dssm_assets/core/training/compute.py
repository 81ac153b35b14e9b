"""Which device computes a fit, in which number format, and together with which processes."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from dssm_assets.core.config.training import Device, Precision
from dssm_assets.core.errors import ConfigError, Fault
from dssm_assets.core.training.ranks import SINGLE_PROCESS, Ranks


@dataclass(frozen=True)
class ComputeContext:
    """Where a fit is computed.

    Attributes:
        device: of all weights.
        bfloat16: dense layers multiply bfloat16 factors; sums and weights stay float32.
        ranks: the processes that share every batch.
    """

    device: torch.device
    bfloat16: bool = False
    ranks: Ranks = SINGLE_PROCESS

    def products(self) -> AbstractContextManager[object]:
        """Returns the block in which dense layers multiply in the number format."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16) if self.bfloat16 else nullcontext()


def device_of(choice: Device) -> torch.device:
    """Returns the device that the configuration means.

    Raises:
        ConfigError: it asks for CUDA and the machine has none.
    """
    has_cuda = torch.cuda.is_available()
    if choice is Device.CUDA and not has_cuda:
        got = "a machine without a CUDA device"
        raise ConfigError(Fault("training.device", "a CUDA device", got, "choose auto or cpu"))
    return torch.device("cuda" if has_cuda and choice is not Device.CPU else "cpu")


def is_bfloat16(choice: Precision, device: torch.device) -> bool:
    """Returns whether dense layers multiply bfloat16 factors."""
    if choice is Precision.AUTO:
        return multiplies_bfloat16(device)
    return choice is Precision.BFLOAT16


def multiplies_bfloat16(device: torch.device) -> bool:
    """Returns whether the processor has instructions for products of bfloat16 numbers."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Private in some releases of torch. A release without these functions counts as a processor without the instructions.
    probes = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(bool(probe()) for probe in probes if probe is not None)
