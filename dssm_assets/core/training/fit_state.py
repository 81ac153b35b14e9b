"""The whole state of a training as bytes and back: what a killed run goes on from.

Belongs here: `Record` (where a training stands and what it has found), the format. Does not belong here: when a state is
stored (`loop`) and where (the asset).

Format: the magic, the header's length (8 bytes, little-endian), the header (JSON: the record, and per tensor its name,
type and shape), then all tensors, little-endian, in the order of the header. No pickle: reading a state runs no code.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from dssm_assets.core.errors import StorageError

_MAGIC: Final = b"DSSMFS01"
_TYPES: Final = {"float32": "<f4", "float64": "<f8", "int64": "<i8", "uint8": "|u1"}


@dataclass(frozen=True)
class EpochScore:
    """How the towers did on the validation days after an epoch.

    Attributes:
        epoch: epochs done, from 1.
        hit_rate: with the prior, if there is one.
        plain_hit_rate: of the towers alone.
        prior: popularity, recent, half-life in days; None without a prior.
    """

    epoch: int
    hit_rate: float
    plain_hit_rate: float
    prior: tuple[float, float, float] | None = None


@dataclass
class Record:
    """Where a training stands and what it has found so far.

    Attributes:
        is_search: the towers are being scored on the validation days; later (or without such days) they are kept.
        epoch: epochs done in this phase.
        step: batches done in this epoch.
        losses: of every step of this phase.
        search_losses: of every step of the search, once it is over.
        scores: after every epoch of the search.
        resumed_at: steps that were done when the training was last taken up again; None: in one go.
    """

    is_search: bool
    epoch: int = 0
    step: int = 0
    losses: list[float] = field(default_factory=list)
    search_losses: list[float] = field(default_factory=list)
    scores: list[EpochScore] = field(default_factory=list)
    resumed_at: int | None = None

    @property
    def best(self) -> EpochScore | None:
        """The first of the epochs with the highest hit rate; None without scores."""
        return max(self.scores, key=lambda score: score.hit_rate, default=None)

    @property
    def steps_done(self) -> int:
        """Steps of both phases."""
        return len(self.search_losses) + len(self.losses)

    def end_search(self) -> None:
        """Begins the phase whose towers are kept."""
        self.is_search, self.epoch, self.step = False, 0, 0
        self.search_losses, self.losses = self.losses, []


def state_chunks(record: Record, tensors: Mapping[str, Tensor], key: str) -> Iterator[bytes]:
    """Yields the state piece by piece, so that a second copy of all weights is never held.

    Args:
        record: where the training stands.
        tensors: all that the next step depends on.
        key: names configuration and inputs; only a run of the same key may take the state up.
    """
    lists = {"losses": record.losses, "search_losses": record.search_losses}
    numbers = {f"record.{name}": torch.tensor(values, dtype=torch.float64) for name, values in lists.items()}
    kept = {name: value for name, value in asdict(record).items() if name not in lists}
    whole = {**numbers, **tensors}
    described = [[name, _type(name, tensor), list(tensor.shape)] for name, tensor in whole.items()]
    header = json.dumps({"key": key, "record": kept, "tensors": described}, sort_keys=True).encode()
    yield b"".join([_MAGIC, len(header).to_bytes(8, "little"), header])
    for name, tensor in whole.items():
        yield tensor.detach().cpu().contiguous().numpy().astype(_TYPES[_type(name, tensor)], copy=False).tobytes()


def state_of(data: bytes, key: str) -> tuple[Record, dict[str, Tensor]] | None:
    """Returns what `state_chunks` wrote; None if it was written for another configuration or other inputs.

    Raises:
        StorageError: the bytes are not a whole state.
    """
    start = len(_MAGIC) + 8
    length = int.from_bytes(data[len(_MAGIC) : start], "little")
    if data[: len(_MAGIC)] != _MAGIC or len(data) < start + length:
        raise StorageError(
            f"state of a training: expected bytes that begin with {_MAGIC!r} and a whole header, got {data[:8]!r}; "
            "remove it to begin anew"
        )
    header = json.loads(data[start : start + length])
    if header["key"] != key:
        return None
    size = sum(math.prod(shape) * np.dtype(_TYPES[kind]).itemsize for _, kind, shape in header["tensors"])
    if len(data) != start + length + size:
        raise StorageError(
            f"state of a training: expected {size} bytes of tensors, got {len(data) - start - length}; remove it"
        )
    tensors, offset = {}, start + length
    for name, kind, shape in header["tensors"]:
        values = np.frombuffer(data, _TYPES[kind], math.prod(shape), offset).astype(kind)
        tensors[name] = torch.from_numpy(values.reshape(shape))
        offset += values.nbytes
    return _record(header["record"], tensors), tensors


def _record(kept: dict[str, Any], tensors: dict[str, Tensor]) -> Record:
    lists: dict[str, Any] = {name: tensors.pop(f"record.{name}").tolist() for name in ("losses", "search_losses")}
    scores = [
        EpochScore(**{**score, "prior": None if score["prior"] is None else tuple(score["prior"])})
        for score in kept.pop("scores")
    ]
    return Record(**kept, **lists, scores=scores)


def _type(name: str, tensor: Tensor) -> str:
    kind = str(tensor.dtype).removeprefix("torch.")
    if kind not in _TYPES:
        raise StorageError(f"state of a training, tensor {name}: expected one of {', '.join(_TYPES)}, got {kind}")
    return kind
