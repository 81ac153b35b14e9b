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
import numpy.typing as npt
import torch
from torch import Tensor

from dssm_assets.core.errors import ConfigError, StorageError
from dssm_assets.core.models.embedding import EmbeddingTables
from dssm_assets.core.models.tower_spec import TowerSpec, spec_faults
from dssm_assets.core.models.two_tower import TwoTower
from dssm_assets.core.statistics.bucketizer import CarriedRows

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


_MODEL_MAGIC: Final = b"DSSMTT01"
_TABLE: Final = "tables.table_"


def model_to_bytes(two_tower: TwoTower) -> bytes:
    """Returns the towers' specification and weights as bytes, the same for the same weights."""
    return b"".join(model_chunks(two_tower))


def model_chunks(two_tower: TwoTower) -> Iterator[bytes]:
    """Yields the same bytes piece by piece, so that tables that are dealt out to processes are never held whole.

    Of such tables every process has to draw the pieces.
    """
    tables = two_tower.tables
    widths = {f"{_TABLE}{dim}": dim for dim in tables.dims}
    state = dict(sorted(two_tower.state_dict().items()))
    shapes = {
        name: [tables.sizes[widths[name]], widths[name]] if name in widths else list(t.shape) for name, t in state.items()
    }
    header = json.dumps({"spec": two_tower.spec.to_json(), "shapes": shapes}, sort_keys=True).encode()
    yield b"".join([_MODEL_MAGIC, len(header).to_bytes(8, "little"), header])
    for name, tensor in state.items():
        for part in tables.blocks(widths[name]) if name in widths else [tensor]:
            yield _bytes(part)


def model_from_bytes(data: bytes, spec: TowerSpec) -> TwoTower:
    """Returns the towers that `model_to_bytes` wrote.

    Raises:
        StorageError: the bytes are not a whole model.
        ConfigError: the model was made for another specification; one fault per difference.
    """
    return _model_of(np.frombuffer(data, np.uint8), spec, is_mapped=False)


def mapped_model(data: npt.NDArray[np.uint8], spec: TowerSpec) -> TwoTower:
    """Returns the towers that `model_to_bytes` wrote, their tables left where the bytes are.

    Of a memory map only what is looked up is read, and processes that map one file share it.

    Args:
        data: the bytes, which may be written to (a private map: nothing reaches the file).
        spec: what the towers must be.

    Raises:
        StorageError: the bytes are not a whole model.
        ConfigError: the model was made for another specification; one fault per difference.
    """
    return _model_of(data, spec, is_mapped=True)


def _model_of(data: npt.NDArray[np.uint8], spec: TowerSpec, *, is_mapped: bool) -> TwoTower:
    header, start = _parsed(data)
    faults = spec_faults(spec, TowerSpec.from_json(header["spec"]), "stored model", "use the model with its own specification")
    if faults:
        raise ConfigError(faults)
    wanted = {name: math.prod(shape) for name, shape in sorted(header["shapes"].items())}
    size = 4 * sum(wanted.values())
    if size != len(data) - start:
        raise StorageError(f"stored model: expected {size} bytes of weights {header['shapes']}, got {len(data) - start}")
    state: dict[str, Tensor] = {}
    for name, count in wanted.items():
        values = data[start : start + 4 * count].view("<f4").reshape(header["shapes"][name])
        is_left = is_mapped and name.startswith(_TABLE)
        state[name] = torch.from_numpy(values.astype(np.float32, copy=not is_left))
        start += 4 * count
    held = {int(name.removeprefix(_TABLE)): state[name] for name in state if name.startswith(_TABLE)}
    generator = torch.Generator().manual_seed(0)
    two_tower = TwoTower(spec, generator, _tables(spec, generator, held, header["shapes"]))
    expected = {name: list(tensor.shape) for name, tensor in two_tower.state_dict().items()}
    if expected != header["shapes"]:
        raise StorageError(f"stored model: expected weights {expected}, got {header['shapes']}")
    two_tower.load_state_dict({name: tensor for name, tensor in state.items() if not name.startswith(_TABLE)}, strict=False)
    return two_tower


def _tables(
    spec: TowerSpec, generator: torch.Generator, held: Mapping[int, Tensor], shapes: Mapping[str, Any]
) -> EmbeddingTables:
    """Returns tables that hold the stored ones.

    Raises:
        StorageError: there is none of a width that the specification has.
    """
    try:
        return EmbeddingTables(spec, generator, held)
    except KeyError as error:
        raise StorageError(f"stored model: expected a table of width {error}, got {sorted(shapes)}") from error


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().numpy().astype("<f4", copy=False).tobytes()


def _parsed(data: npt.NDArray[np.uint8]) -> tuple[dict[str, Any], int]:
    """Returns the header, and where the weights begin."""
    start = len(_MODEL_MAGIC) + 8
    begin = data[:start].tobytes()
    length = int.from_bytes(begin[len(_MODEL_MAGIC) :], "little")
    if begin[: len(_MODEL_MAGIC)] != _MODEL_MAGIC or len(data) < start + length:
        raise StorageError(f"stored model: expected bytes that begin with {_MAGIC!r} and a whole header, got {begin[:8]!r}")
    return json.loads(data[start : start + length].tobytes()), start + length


@dataclass(frozen=True)
class WarmStart:
    """An earlier day's towers, and which of their embedding rows are whose today.

    Attributes:
        name: the partition they come from, for the report.
        two_tower: only read.
        rows: by embedding.
    """

    name: str
    two_tower: TwoTower
    rows: Mapping[str, CarriedRows]

    def into(self, two_tower: TwoTower) -> dict[str, Any]:
        """Carries the weights into towers as they were initialised; returns what the report says of it.

        Returns:
            from, embedding_rows_carried, embedding_rows_new, dense_tensors_carried, dense_tensors_new.
        """
        carried = sum(self._carry_rows(two_tower, name) for name in two_tower.tables.bases)
        total = sum(size - 1 for size in _sizes(two_tower.spec).values())
        dense = self._carry_dense(two_tower)
        names = [name for name in two_tower.state_dict() if not name.startswith("tables.")]
        return {
            "from": self.name,
            "embedding_rows_carried": carried,
            "embedding_rows_new": total - carried,
            "dense_tensors_carried": dense,
            "dense_tensors_new": len(names) - dense,
        }

    def _carry_rows(self, two_tower: TwoTower, embedding: str) -> int:
        dims = [
            {f.embedding_name: f.embedding_dim for f in of.spec.features}.get(embedding) for of in (two_tower, self.two_tower)
        ]
        found = self.rows.get(embedding)
        if found is None or dims[0] is None or dims[0] != dims[1]:
            return 0
        into, source = two_tower.tables, self.two_tower.tables
        today, earlier = found.today + into.bases[embedding], found.earlier + source.bases[embedding]
        into.put(dims[0], today, source.table(dims[0]), earlier)
        return len(found.today)

    def _carry_dense(self, two_tower: TwoTower) -> int:
        if _read_features(two_tower.spec) != _read_features(self.two_tower.spec):
            return 0
        earlier, count = self.two_tower.state_dict(), 0
        with torch.no_grad():
            for name, tensor in two_tower.state_dict().items():
                if not name.startswith("tables.") and name in earlier and earlier[name].shape == tensor.shape:
                    tensor.copy_(earlier[name])
                    count += 1
        return count


def _sizes(spec: TowerSpec) -> dict[str, int]:
    return {feature.embedding_name: feature.num_embeddings for feature in spec.features}


def _read_features(spec: TowerSpec) -> list[dict[str, Any]]:
    """Returns the features as the towers read them: all but how many values they have."""
    return [feature.model_dump(exclude={"num_embeddings"}) for feature in spec.features]
