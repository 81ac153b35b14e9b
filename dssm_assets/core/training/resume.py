"""Starts fits from stored weights: resumes a killed fit, or starts from an earlier day's model.

A state has the format of a model (`model_format`). Its header also has the fit's history, and the name, type and shape of each
tensor. No pickle: reading a state runs no code.
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

_MAGIC: Final = b"DSSMFS02"
_WHAT, _REMEDY = "state of a training", "remove the state, and the training starts again"


class Checkpoints:
    """Restores a fit's state, and stores it every few minutes. By default it does neither."""

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
        """Takes this moment as the begin of the fit.

        Args:
            key: digest of configuration and inputs; a state with another key is ignored.
            saved: the last state that a killed run stored with `save`.
            save: stores a state, given in pieces. None: this process stores nothing.
            now: seconds of a clock that never goes back.
            all_ranks: the processes of the fit. All store their parts after the same step; the first process decides when.
        """
        self._key, self._saved, self._save = key, saved, save
        self._seconds, self._now, self._all_ranks = 60.0 * minutes, now, all_ranks
        self._saved_at = now()

    def restore(self) -> tuple[FitHistory, dict[str, Tensor]] | None:
        """Returns the history and tensors of a killed fit with the same key. None if there is no such fit."""
        return None if self._saved is None else read_state(self._saved, self._key)

    def save_if_due(self, history: FitHistory, state: Callable[[], dict[str, Tensor]]) -> None:
        """Stores the state if it is time; must be called after every step. `state` returns all tensors that the next step needs."""
        if self._save is None:
            return
        (is_due,) = self._all_ranks.from_first([float(self._now() - self._saved_at >= self._seconds)])
        if is_due:
            self._save(state_chunks(history, state(), self._key))
            self._saved_at = self._now()


def state_chunks(history: FitHistory, tensors: Mapping[str, Tensor], key: str) -> Iterator[bytes]:
    """Yields the state in pieces, so that the weights are never copied as a whole.

    Args:
        tensors: everything that the next step needs.
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
    """Parses the joined pieces of `state_chunks`. None if the state has another key.

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
    """An earlier day's towers, and the embedding rows with the same meaning today.

    Attributes:
        name: partition of the towers, for the report.
        two_tower: the earlier towers; never changed.
        rows: embedding -> pairs of rows with the same meaning.
    """

    name: str
    two_tower: TwoTower
    rows: Mapping[str, CarriedRows]

    def copy_into(self, two_tower: TwoTower) -> dict[str, Any]:
        """Copies the earlier weights where they fit. Returns the report's entries.

        Returns:
            from, embedding_rows_carried, embedding_rows_new, dense_tensors_carried, dense_tensors_new.
        """
        today, earlier = (
            {f.embedding_name: f.embedding_dim for f in towers.spec.features} for towers in (two_tower, self.two_tower)
        )
        target, source, carried = two_tower.tables, self.two_tower.tables, 0
        for name, rows in self.rows.items():
            dim = today.get(name)
            if dim is not None and dim == earlier.get(name):
                target.write_rows(dim, rows.today + target.bases[name], source.table(dim), rows.earlier + source.bases[name])
                carried += len(rows.today)
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

    def _copy_layers(self, two_tower: TwoTower) -> int:
        """Copies the dense tensors with the same shape if the towers read the same features. Returns their number."""
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
    """Returns everything that the towers know of their features, except the sizes of vocabularies."""
    return [feature.model_dump(exclude={"num_embeddings"}) for feature in spec.features]
