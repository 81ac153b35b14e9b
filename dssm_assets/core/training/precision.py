"""Where the towers are fitted and in what number format they multiply.

Belongs here: the choice of a device and of a format, and the block in which products use it. Does not belong here: what
is multiplied. Weights, sums, norms and the optimisers are float32 whatever the format.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from dssm_assets.core.errors import ConfigError, Fault
from dssm_assets.core.training_config import Device, Precision


def device_of(choice: Device) -> torch.device:
    """Returns the device that is meant.

    Raises:
        ConfigError: CUDA is asked for and there is none.
    """
    has_cuda = torch.cuda.is_available()
    if choice is Device.CUDA and not has_cuda:
        got = "a machine without a CUDA device"
        raise ConfigError(Fault("training.device", "a CUDA device", got, "choose auto or cpu"))
    return torch.device("cuda" if has_cuda and choice is not Device.CPU else "cpu")


def is_bfloat16(choice: Precision, device: torch.device) -> bool:
    """Tells whether products are to be of bfloat16 factors."""
    if choice is Precision.AUTO:
        return multiplies_bfloat16(device)
    return choice is Precision.BFLOAT16


def multiplies_bfloat16(device: torch.device) -> bool:
    """Tells whether the processor has instructions for products of bfloat16 numbers."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Not public in every release of torch; a release without them is taken for a processor without the instructions.
    asked = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(bool(ask()) for ask in asked if ask is not None)


def products(bfloat16: bool, device: torch.device) -> AbstractContextManager[object]:
    """Returns the block in which dense layers multiply in the format."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if bfloat16 else nullcontext()
