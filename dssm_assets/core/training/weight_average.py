"""The moving average of the towers' weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from dssm_assets.core.models.two_tower import TwoTower
from dssm_assets.core.training.optimisers import RowGradients


class WeightAverage:
    """The moving average of the towers' weights, updated after every step."""

    def __init__(self, two_tower: TwoTower, decay: float) -> None:
        """Begins with the current weights. The first steps use a lower decay than `decay`."""
        self._towers, self._decay = two_tower, decay
        tables = two_tower.tables
        self._dense = {name: p.detach().clone() for name, p in two_tower.named_parameters()}
        self._rows = {dim: tables.table(dim).clone() for dim in tables.dims}
        self._log_at = {dim: tables.table(dim).new_zeros(len(tables.table(dim)), dtype=torch.float64) for dim in tables.dims}
        self._clock = torch.zeros(2, dtype=torch.float64)  # number of steps done; sum of the logs of their decays

    def before_update(self, rows: Sequence[RowGradients]) -> None:
        """Brings the averages of these rows up to date before the step changes them. Steps that do not read a row skip its average."""
        for found in rows:
            self._catch_up_rows(found.dim, found.rows)

    def after_update(self, rows: Sequence[RowGradients]) -> None:
        done = int(self._clock[0])
        decay = min(self._decay, (1 + done) / (10 + done))
        self._clock += torch.tensor([1.0, math.log(decay)], dtype=torch.float64)
        with torch.no_grad():
            for name, parameter in self._towers.named_parameters():
                self._dense[name].lerp_(parameter, 1.0 - decay)
            for found in rows:
                average, weight = self._rows[found.dim], self._towers.tables.table(found.dim)
                moved = torch.lerp(average.index_select(0, found.rows), weight.index_select(0, found.rows), 1.0 - decay)
                average.index_copy_(0, found.rows, moved)
                self._log_at[found.dim].index_fill_(0, found.rows, float(self._clock[1]))

    @contextmanager
    def evaluation_weights(self) -> Iterator[None]:
        """Inside the block, the towers have the average. Afterwards they have their own weights again."""
        self.finish()
        try:
            yield
        finally:
            self._swap()

    def finish(self) -> None:
        """Leaves the average in the towers. They cannot be trained further."""
        self._catch_up_tables()
        self._swap()

    def state(self) -> dict[str, Tensor]:
        state = {"place": self._clock} | {f"dense.{name}": average for name, average in self._dense.items()}
        state |= {f"rows_{dim}": rows for dim, rows in self._rows.items()}
        return state | {f"log_at_{dim}": at for dim, at in self._log_at.items()}

    def _catch_up_rows(self, dim: int, rows: Tensor) -> None:
        log_at, average, weight = self._log_at[dim], self._rows[dim], self._towers.tables.table(dim)
        left = (float(self._clock[1]) - log_at.index_select(0, rows)).exp_().float()[:, None]
        average.index_copy_(0, rows, torch.lerp(weight.index_select(0, rows), average.index_select(0, rows), left))

    def _catch_up_tables(self) -> None:
        for dim in self._towers.tables.dims:
            log_at, average = self._log_at[dim], self._rows[dim]
            left = (float(self._clock[1]) - log_at).exp_().float()[:, None]
            torch.lerp(self._towers.tables.table(dim), average, left, out=average)
            log_at.fill_(float(self._clock[1]))

    def _swap(self) -> None:
        """Exchanges the towers' weights and the average. Only the storages are exchanged; nothing is copied."""
        pairs: list[tuple[Tensor, Tensor]] = [(weight, self._dense[name]) for name, weight in self._towers.named_parameters()]
        pairs += [(self._towers.tables.table(dim), average) for dim, average in self._rows.items()]
        for weight, average in pairs:
            weight.data, average.data = average.data, weight.data
