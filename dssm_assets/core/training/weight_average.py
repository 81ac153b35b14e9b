"""The exponential moving average of all weights, at the cost of the rows that each step reads.

Belongs here: the average. Does not belong here: when it is evaluated and stored (`loop`).

After step t = 0, 1, ..: average = d_t * average + (1 - d_t) * weight, with d_t = min(decay, (1 + t) / (10 + t)), so that
the start is forgotten as fast as a short average would. It begins as the weights.

Embedding rows: a row that is not read from step s to t keeps its weight w, so that

    average = w + (average - w) * d_s * .. * d_t

holds exactly, and one sum of log decays and the last step per row replace an update of the whole table in every step.

Letters: U rows read, d width of a table.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from dssm_assets.core.models.two_tower import TwoTower
from dssm_assets.core.training.optimisers import RowGradients


class WeightAverage:
    """The moving average of the towers' weights.

    A step is `before` (the rows as they were), the optimisers' moves, `after`.
    """

    def __init__(self, two_tower: TwoTower, decay: float) -> None:
        """Begins with the weights as they are.

        Args:
            two_tower: the towers; their parameters and tables are followed.
            decay: of every step but the first ones, above 0 and below 1.
        """
        self._towers, self._decay = two_tower, decay
        tables = two_tower.tables
        self._dense = {name: p.detach().clone() for name, p in two_tower.named_parameters()}
        self._rows = {dim: tables.table(dim).clone() for dim in tables.dims}
        self._log_at = {dim: tables.table(dim).new_zeros(len(tables.table(dim)), dtype=torch.float64) for dim in tables.dims}
        self._place = torch.zeros(2, dtype=torch.float64)  # steps done; the sum of the logs of their decays

    def before(self, gradients: list[RowGradients]) -> None:
        """Brings the rows that are about to move up to date with the steps in which they stood still."""
        for found in (block for whole in gradients for block in whole.blocks()):
            self._catch_up(found.dim, found.rows)

    def after(self, gradients: list[RowGradients]) -> None:
        """Takes one step of weights into the average."""
        done = int(self._place[0])
        decay = min(self._decay, (1 + done) / (10 + done))
        self._place += torch.tensor([1.0, math.log(decay)], dtype=torch.float64)
        with torch.no_grad():
            for name, parameter in self._towers.named_parameters():
                self._dense[name].lerp_(parameter, 1.0 - decay)
            for found in (block for whole in gradients for block in whole.blocks()):
                average, weight, rows = self._rows[found.dim], self._towers.tables.table(found.dim), found.rows
                moved = torch.lerp(average.index_select(0, rows), weight.index_select(0, rows), 1.0 - decay)
                average.index_copy_(0, rows, moved)
                self._log_at[found.dim].index_fill_(0, rows, float(self._place[1]))

    def keep(self) -> None:
        """Has the towers hold the average for good; nothing can be learned any more."""
        self._exchange()

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Has the towers hold the average inside the block, and their own weights again after it."""
        self._exchange()
        try:
            yield
        finally:
            self._swap()

    def state(self) -> dict[str, Tensor]:
        """Returns all that the average depends on beside the towers, by name; not copies."""
        state = {"place": self._place} | {f"dense.{name}": held for name, held in self._dense.items()}
        state |= {f"rows_{dim}": rows for dim, rows in self._rows.items()}
        return state | {f"log_at_{dim}": at for dim, at in self._log_at.items()}

    def load(self, state: dict[str, Tensor]) -> None:
        """Goes on from what `state` returned."""
        for name, held in self.state().items():
            held.copy_(state[name])

    def _catch_up(self, dim: int, rows: Tensor | None) -> None:
        """Takes the steps in which rows (None: all) stood still into their average."""
        at, average, weight = self._log_at[dim], self._rows[dim], self._towers.tables.table(dim)
        now = float(self._place[1])
        if rows is None:
            left = (now - at).exp_().float()[:, None]
            torch.lerp(weight, average, left, out=average)
            at.fill_(now)
        else:
            left = (now - at.index_select(0, rows)).exp_().float()[:, None]
            caught_up = torch.lerp(weight.index_select(0, rows), average.index_select(0, rows), left)
            average.index_copy_(0, rows, caught_up)

    def _exchange(self) -> None:
        for dim in self._towers.tables.dims:
            self._catch_up(dim, None)
        self._swap()

    def _swap(self) -> None:
        """Exchanges the towers' weights and the average by exchanging their storage: nothing is copied."""
        held = {**self._dense, **{f"tables.{dim}": rows for dim, rows in self._rows.items()}}
        live = dict(self._towers.named_parameters())
        live_tables = {f"tables.{dim}": self._towers.tables.table(dim) for dim in self._towers.tables.dims}
        for name, weight in {**live, **live_tables}.items():
            weight.data, held[name].data = held[name].data, weight.data
