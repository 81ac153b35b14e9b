"""The state of a running fit as bytes, and when it is stored: what a killed fit resumes from.

Format: the magic, the header's length (8 bytes, little-endian), the header (JSON: the history, and per tensor its name, type
and shape), then all tensors, little-endian, in the order of the header. No pickle: reading a state runs no code.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from dssm_assets.core.errors import StorageError
from dssm_assets.core.training.compute import SINGLE_PROCESS, Ranks
from dssm_assets.core.training.fit_options import Checkpoints
from dssm_assets.core.training.fit_report import EpochScore, FitHistory

_MAGIC: Final = b"DSSMFS01"
_TYPES: Final = {"float32": "<f4", "float64": "<f8", "int64": "<i8", "uint8": "|u1"}


class StoredCheckpoints(Checkpoints):
    """Restores a stored state and stores a new one every few minutes."""

    def __init__(
        self,
        key: str,
        saved: bytes | None,
        save: Callable[[Iterable[bytes]], None] | None,
        *,
        minutes: float,
        now: Callable[[], float],
        all_ranks: Ranks = SINGLE_PROCESS,
    ) -> None:
        """Notes when the fit begins.

        Args:
            key: names configuration and inputs; a state of another key is ignored.
            saved: what `save` received from a run that was killed.
            save: stores a state, which is given piece by piece; None: another process stores it.
            now: seconds of a clock that never goes back.
            all_ranks: the processes that each store their part of the same step. The first one decides when. By default
                this process decides alone.
        """
        self._key, self._saved, self._save = key, saved, save
        self._seconds, self._now, self._all_ranks = 60.0 * minutes, now, all_ranks
        self._saved_at = now()

    def restore(self) -> tuple[FitHistory, dict[str, Tensor]] | None:
        return None if self._saved is None else read_state(self._saved, self._key)

    def save_if_due(self, history: FitHistory, state: Callable[[], dict[str, Tensor]]) -> None:
        if self._save is None:
            return
        (is_due,) = self._all_ranks.from_first([float(self._now() - self._saved_at >= self._seconds)])
        if is_due:
            self._save(state_chunks(history, state(), self._key))
            self._saved_at = self._now()


def state_chunks(history: FitHistory, tensors: Mapping[str, Tensor], key: str) -> Iterator[bytes]:
    """Yields the state piece by piece, so that there is never a second copy of all weights.

    Args:
        tensors: everything that the next step depends on.
        key: names configuration and inputs; only a fit of the same key may resume from the state.
    """
    lists = {"losses": history.losses, "search_losses": history.search_losses}
    numbers = {f"record.{name}": torch.tensor(values, dtype=torch.float64) for name, values in lists.items()}
    fields = {name: value for name, value in asdict(history).items() if name not in lists}
    named = {**numbers, **tensors}
    described = [[name, _type_of(name, tensor), list(tensor.shape)] for name, tensor in named.items()]
    header = json.dumps({"key": key, "record": fields, "tensors": described}, sort_keys=True).encode()
    yield b"".join([_MAGIC, len(header).to_bytes(8, "little"), header])
    for name, tensor in named.items():
        yield tensor.detach().cpu().contiguous().numpy().astype(_TYPES[_type_of(name, tensor)], copy=False).tobytes()


def read_state(data: bytes, key: str) -> tuple[FitHistory, dict[str, Tensor]] | None:
    """Returns what `state_chunks` wrote; None if it has another configuration or other inputs.

    Raises:
        StorageError: the bytes are not a whole state.
    """
    start = len(_MAGIC) + 8
    length = int.from_bytes(data[len(_MAGIC) : start], "little")
    if data[: len(_MAGIC)] != _MAGIC or len(data) < start + length:
        raise StorageError(
            f"state of a training: expected bytes that begin with {_MAGIC!r} and a whole header, got {data[:8]!r}. "
            "To fix: remove the state, and the training starts again"
        )
    header = json.loads(data[start : start + length])
    if header["key"] != key:
        return None
    size = sum(math.prod(shape) * np.dtype(_TYPES[kind]).itemsize for _, kind, shape in header["tensors"])
    if len(data) != start + length + size:
        raise StorageError(
            f"state of a training: expected {size} bytes of tensors, got {len(data) - start - length}. "
            "To fix: remove the state, and the training starts again"
        )
    tensors, offset = {}, start + length
    for name, kind, shape in header["tensors"]:
        values = np.frombuffer(data, _TYPES[kind], math.prod(shape), offset).astype(kind)
        tensors[name] = torch.from_numpy(values.reshape(shape))
        offset += values.nbytes
    return _read_history(header["record"], tensors), tensors


def _read_history(fields: dict[str, Any], tensors: dict[str, Tensor]) -> FitHistory:
    lists: dict[str, Any] = {name: tensors.pop(f"record.{name}").tolist() for name in ("losses", "search_losses")}
    scores = [
        EpochScore(**{**score, "prior": None if score["prior"] is None else tuple(score["prior"])})
        for score in fields.pop("scores")
    ]
    return FitHistory(**fields, **lists, scores=scores)


def _type_of(name: str, tensor: Tensor) -> str:
    kind = str(tensor.dtype).removeprefix("torch.")
    if kind not in _TYPES:
        raise StorageError(
            f"state of a training, tensor {name}: expected one of {', '.join(_TYPES)}, got {kind}. To fix: remove it"
        )
    return kind
