"""Fitted towers as bytes and back. The same weights give the same bytes, on every machine.

Belongs here: the format. Does not belong here: where the bytes are kept, and the manifest beside them.

Format: the magic, the header's length (8 bytes, little-endian), the header (JSON: specification, and per tensor its
name, shape and place), then all tensors as little-endian float32 in the order of their names. No pickle: reading a
model runs no code of its author.
"""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dssm_assets.core.errors import ConfigError, StorageError
from dssm_assets.core.models.tower_spec import TowerSpec, spec_faults
from dssm_assets.core.models.two_tower import TwoTower

_MAGIC = b"DSSMTT01"


def model_to_bytes(two_tower: TwoTower) -> bytes:
    """Returns the towers' specification and weights as bytes, the same for the same weights."""
    weights = {name: _bytes(tensor) for name, tensor in sorted(two_tower.state_dict().items())}
    shapes = {name: list(tensor.shape) for name, tensor in sorted(two_tower.state_dict().items())}
    header = json.dumps({"spec": two_tower.spec.to_json(), "shapes": shapes}, sort_keys=True).encode()
    return b"".join([_MAGIC, len(header).to_bytes(8, "little"), header, *weights.values()])


def model_from_bytes(data: bytes, spec: TowerSpec) -> TwoTower:
    """Returns the towers that `model_to_bytes` wrote.

    Raises:
        StorageError: the bytes are not a whole model.
        ConfigError: the model was made for another specification; one fault per difference.
    """
    header, body = _parsed(data)
    faults = spec_faults(spec, TowerSpec.from_json(header["spec"]), "stored model", "use the model with its own specification")
    if faults:
        raise ConfigError(faults)
    two_tower = TwoTower(spec, torch.Generator().manual_seed(0))
    wanted = {name: list(tensor.shape) for name, tensor in sorted(two_tower.state_dict().items())}
    size = 4 * sum(math.prod(shape) for shape in wanted.values())
    if wanted != header["shapes"] or size != len(body):
        raise StorageError(f"stored model: expected {size} bytes of weights {wanted}, got {len(body)} of {header['shapes']}")
    state: dict[str, Tensor] = {}
    offset = 0
    for name, shape in wanted.items():
        count = math.prod(shape)
        values = np.frombuffer(body, "<f4", count, offset).astype(np.float32)
        state[name] = torch.from_numpy(values.reshape(shape))
        offset += 4 * count
    two_tower.load_state_dict(state)
    return two_tower


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().numpy().astype("<f4").tobytes()


def _parsed(data: bytes) -> tuple[dict[str, Any], memoryview]:
    start = len(_MAGIC) + 8
    length = int.from_bytes(data[len(_MAGIC) : start], "little")
    if data[: len(_MAGIC)] != _MAGIC or len(data) < start + length:
        raise StorageError(f"stored model: expected bytes that begin with {_MAGIC!r} and a whole header, got {data[:8]!r}")
    return json.loads(data[start : start + length]), memoryview(data)[start + length :]
