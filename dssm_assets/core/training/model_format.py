"""File format of a trained model.

Format: magic bytes, the header's length (8 bytes, little-endian), the header (JSON: the specification, and the shape of
every tensor), then all tensors as float32, little-endian, sorted by name. No pickle: reading a model runs no code.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from dssm_assets.core.errors import ConfigError, StorageError
from dssm_assets.core.models.embedding import EmbeddingTables
from dssm_assets.core.models.tower_spec import TowerSpec, spec_faults
from dssm_assets.core.models.two_tower import TwoTower

_MAGIC: Final = b"DSSMTT01"
_TABLE: Final = "tables.table_"
_WHAT, _REMEDY = "stored model", "fit the model again"


def model_chunks(two_tower: TwoTower) -> Iterator[bytes]:
    """Yields the towers' specification and weights as bytes. Equal weights give equal bytes.

    Thanks to the pieces a sharded table is never whole in memory. With sharded tables, every process must iterate to the end.
    """
    tables = two_tower.tables
    widths = {f"{_TABLE}{dim}": dim for dim in tables.dims}
    state = dict(sorted(two_tower.state_dict().items()))
    shapes = {
        name: [tables.sizes[widths[name]], widths[name]] if name in widths else list(t.shape) for name, t in state.items()
    }
    yield header_bytes(_MAGIC, {"spec": two_tower.spec.to_json(), "shapes": shapes})
    for name, tensor in state.items():
        for part in tables.blocks(widths[name]) if name in widths else [tensor]:
            yield part.detach().numpy().astype("<f4", copy=False).tobytes()


def mapped_model(data: npt.NDArray[np.uint8], spec: TowerSpec) -> TwoTower:
    """Returns the towers stored in the bytes of `model_chunks`. Their tables are views of the bytes.

    If the bytes are a memory map, only looked-up rows are read, and all processes with the same file share its pages.

    Args:
        data: the joined chunks. torch needs them to be writable, so use a copy-on-write memory map.

    Raises:
        StorageError: the bytes are not a whole model.
        ConfigError: the model has another specification. The error has a fault per difference.
    """
    header, start = read_header(data, _MAGIC, _WHAT, _REMEDY)
    remedy = "fit the model again with the current configuration"
    ConfigError.raise_if(spec_faults(spec, TowerSpec.model_validate_json(header["spec"]), _WHAT, remedy))
    described = [(name, "<f4", shape) for name, shape in sorted(header["shapes"].items())]
    state = {name: torch.from_numpy(values) for name, values in read_arrays(data[start:], described, _WHAT, _REMEDY)}
    by_dim = {int(name.removeprefix(_TABLE)): state[name] for name in state if name.startswith(_TABLE)}
    generator = torch.Generator().manual_seed(0)
    two_tower = TwoTower(spec, generator, EmbeddingTables(spec, generator, by_dim))
    expected, got = {name: list(tensor.shape) for name, tensor in two_tower.state_dict().items()}, header["shapes"]
    differing = sorted(name for name in expected.keys() | got.keys() if expected.get(name) != got.get(name))
    if differing:
        shapes = [", ".join(f"{name} {of.get(name, 'missing')}" for name in differing) for of in (expected, got)]
        raise StorageError(f"{_WHAT}: expected tensors of the shapes {shapes[0]}, got {shapes[1]}. To fix: {_REMEDY}")
    two_tower.load_state_dict({name: tensor for name, tensor in state.items() if not name.startswith(_TABLE)}, strict=False)
    return two_tower


def header_bytes(magic: bytes, header: Mapping[str, Any]) -> bytes:
    """Returns the beginning of a file of tensors: magic bytes, the header's length and the header."""
    text = json.dumps(header, sort_keys=True).encode()
    return b"".join([magic, len(text).to_bytes(8, "little"), text])


def read_header(data: bytes | npt.NDArray[np.uint8], magic: bytes, what: str, remedy: str) -> tuple[dict[str, Any], int]:
    """Returns the header, and the position of the first tensor.

    Raises:
        StorageError: the bytes do not begin with the magic bytes and a whole header.
    """
    start = len(magic) + 8
    begin = bytes(data[:start])
    end = start + int.from_bytes(begin[len(magic) :], "little")
    if begin[: len(magic)] != magic or len(data) < end:
        expected, got = f"bytes that begin with {magic!r} and a whole header", begin[: len(magic)]
        raise StorageError(f"{what}: expected {expected}, got {got!r}. To fix: {remedy}")
    return json.loads(bytes(data[start:end])), end


def read_arrays(
    data: memoryview | npt.NDArray[np.uint8], described: Sequence[tuple[str, str, Sequence[int]]], what: str, remedy: str
) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """Yields the name and array of each tensor. Arrays are views of the bytes.

    Raises:
        StorageError: the bytes and the described tensors (name, type, shape) have different sizes.
    """
    sizes = [math.prod(shape) * np.dtype(kind).itemsize for _, kind, shape in described]
    if sum(sizes) != len(data):
        raise StorageError(f"{what}: expected {sum(sizes)} bytes of tensors, got {len(data)}. To fix: {remedy}")
    for (name, kind, shape), end, size in zip(described, itertools.accumulate(sizes), sizes, strict=True):
        yield name, np.asarray(data[end - size : end]).view(kind).reshape(shape)
