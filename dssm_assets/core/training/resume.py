"""Starts fits from stored weights: resumes killed fits, or starts from an earlier day's model.

A state has the format of a model (`model_format`); its header also holds the fit's history, and the name, type and shape of
each tensor. No pickle: reading a state runs no code.

Belongs here: the format of a state, the times of storing it, earlier weights. Does not belong here: files and paths
(`steps/fit_job.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import torch
from pydantic import TypeAdapter
from torch import Tensor

from dssm_assets.core.models.tower_spec import TowerSpec
from dssm_assets.core.models.two_tower import TwoTower
from dssm_assets.core.statistics.bucketizer import CarriedRows
from dssm_assets.core.training.compute import SINGLE_PROCESS, Ranks
from dssm_assets.core.training.fit_report import FitHistory
from dssm_assets.core.training.model_format import header_bytes, read_arrays, read_header

_MAGIC: Final = b"DSSMFS01"
_WHAT, _REMEDY = "state of a training", "remove the state, and the training starts again"


class Checkpoints:
    """Restores and stores a fit's state, every few minutes; by default it does neither."""

    def __init__(
        self,
        key: str = "",
        saved: bytes | None = None,
        save: Callable[[Iterable[bytes]], None] | None = None,
        *,
        minutes: float = 0.0,
        now: Callable[[], float] = lambda: 0.0,
        all_ranks: Ranks = SINGLE_PROCESS,
    ) -> None:
        """Notes when the fit begins.

        Args:
            key: digest of configuration and inputs; a state with another key is ignored.
            saved: the state that a killed run gave to `save`.
            save: stores a state from its pieces; None: another process stores it, or none.
            now: seconds of a clock that never goes back.
            all_ranks: the processes; each stores its part of the same step, and the first decides when.
        """
        self._key, self._saved, self._save = key, saved, save
        self._seconds, self._now, self._all_ranks = 60.0 * minutes, now, all_ranks
        self._saved_at = now()

    def restore(self) -> tuple[FitHistory, dict[str, Tensor]] | None:
        """Returns history and tensors of a killed fit with the same key, or None."""
        return None if self._saved is None else read_state(self._saved, self._key)

    def save_if_due(self, history: FitHistory, state: Callable[[], dict[str, Tensor]]) -> None:
        """Called after every step. `state` returns all tensors that the next step depends on."""
        if self._save is None:
            return
        (is_due,) = self._all_ranks.from_first([float(self._now() - self._saved_at >= self._seconds)])
        if is_due:
            self._save(state_chunks(history, state(), self._key))
            self._saved_at = self._now()


def state_chunks(history: FitHistory, tensors: Mapping[str, Tensor], key: str) -> Iterator[bytes]:
    """Yields the state piece by piece, without a second copy of all weights.

    Args:
        tensors: everything that the next step depends on.
        key: digest of configuration and inputs; only a fit with the same key may resume.
    """
    lists = {"losses": history.losses, "search_losses": history.search_losses}
    numbers = {f"record.{name}": torch.tensor(values, dtype=torch.float64) for name, values in lists.items()}
    fields = {name: value for name, value in asdict(history).items() if name not in lists}
    named = {**numbers, **tensors}
    described = [[name, str(tensor.dtype).removeprefix("torch."), list(tensor.shape)] for name, tensor in named.items()]
    yield header_bytes(_MAGIC, {"key": key, "record": fields, "tensors": described})
    for tensor in named.values():
        yield tensor.detach().cpu().numpy().tobytes()


def read_state(data: bytes, key: str) -> tuple[FitHistory, dict[str, Tensor]] | None:
    """Joins the pieces of `state_chunks` and parses them; None if the key differs.

    Raises:
        StorageError: the bytes are not a whole state.
    """
    header, start = read_header(data, _MAGIC, _WHAT, _REMEDY)
    if header["key"] != key:
        return None
    arrays = read_arrays(memoryview(data)[start:], header["tensors"], _WHAT, _REMEDY)
    tensors = {name: torch.from_numpy(values.copy()) for name, values in arrays}
    lists = {name: tensors.pop(f"record.{name}").tolist() for name in ("losses", "search_losses")}
    return TypeAdapter(FitHistory).validate_python({**header["record"], **lists}), tensors


@dataclass(frozen=True)
class WarmStart:
    """An earlier day's towers, and for each embedding the rows whose value means the same today.

    Attributes:
        name: their partition, for the report.
        two_tower: only read.
        rows: by embedding.
    """

    name: str
    two_tower: TwoTower
    rows: Mapping[str, CarriedRows]

    def copy_into(self, two_tower: TwoTower) -> dict[str, Any]:
        """Copies earlier values to weights that have one; returns the report's entries.

        Returns:
            from, embedding_rows_carried, embedding_rows_new, dense_tensors_carried, dense_tensors_new.
        """
        carried = sum(self._copy_rows(two_tower, name) for name in two_tower.tables.bases)
        total = sum({f.embedding_name: f.num_embeddings - 1 for f in two_tower.spec.features}.values())
        dense = self._copy_layers(two_tower)
        names = [name for name in two_tower.state_dict() if not name.startswith("tables.")]
        return {
            "from": self.name,
            "embedding_rows_carried": carried,
            "embedding_rows_new": total - carried,
            "dense_tensors_carried": dense,
            "dense_tensors_new": len(names) - dense,
        }

    def _copy_rows(self, two_tower: TwoTower, embedding: str) -> int:
        """Copies the rows of an embedding that has the same width today; returns how many."""
        dim, earlier_dim = (
            {f.embedding_name: f.embedding_dim for f in towers.spec.features}.get(embedding)
            for towers in (two_tower, self.two_tower)
        )
        rows = self.rows.get(embedding)
        if rows is None or dim is None or dim != earlier_dim:
            return 0
        target, source = two_tower.tables, self.two_tower.tables
        today, earlier = rows.today + target.bases[embedding], rows.earlier + source.bases[embedding]
        target.write_rows(dim, today, source.table(dim), earlier)
        return len(rows.today)

    def _copy_layers(self, two_tower: TwoTower) -> int:
        """Copies the dense tensors of the same shape if the towers read the same features; returns how many."""
        if _features_read(two_tower.spec) != _features_read(self.two_tower.spec):
            return 0
        earlier, count = self.two_tower.state_dict(), 0
        with torch.no_grad():
            for name, tensor in two_tower.state_dict().items():
                if not name.startswith("tables.") and name in earlier and earlier[name].shape == tensor.shape:
                    tensor.copy_(earlier[name])
                    count += 1
        return count


def _features_read(spec: TowerSpec) -> list[dict[str, Any]]:
    """Returns the features as the towers read them: everything except how many values they have."""
    return [feature.model_dump(exclude={"num_embeddings"}) for feature in spec.features]
