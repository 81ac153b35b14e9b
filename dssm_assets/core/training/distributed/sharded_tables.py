"""Embedding tables whose rows are dealt out to several processes, for tables that do not fit into one.

Row r lies in process r mod W, at place r div W, with its optimiser's moments and its average beside it. A look-up asks the
owners for its distinct rows (one exchange of row numbers, one of vectors); after backward the gradients of the rows that
were read go the same way back, the owner adds them up in the order of the processes and moves the row. So the result is
that of whole tables in every process, bit for bit, with 1 / W of the memory.

All of it is `torch.distributed`, on gloo and NCCL alike. On a cluster of GPUs torchrec's sharded collections would take
this place: a class with the methods of `EmbeddingTables` from `rows_at` to `mean_length`, and `moved_here`.

Belongs here: where rows lie, and the exchanges. Does not belong here: how rows move (`optimisers`), what else processes
share (`distributed`).

Letters: W processes, n rows asked for, U distinct rows, d width of a table.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from dssm_assets.core.arrays.ragged import IntArray
from dssm_assets.core.models.embedding import INITIAL_STD, EmbeddingTables
from dssm_assets.core.models.tower_spec import TowerSpec
from dssm_assets.core.training.distributed.ranks import Ranks, exchange_device, sums_by_row
from dssm_assets.core.training.optimisers import RowGradients

BLOCK_ROWS = 1 << 16
_ALIKE = 16
"""Values that torch draws together: parts of a table that have a multiple of so many are drawn as the whole would be."""


class ShardedTables(EmbeddingTables):
    """The fused tables, of which this process holds every W-th row. Its methods are called by all processes at once."""

    def __init__(self, spec: TowerSpec, generator: torch.Generator, ranks: Ranks) -> None:
        """Draws the tables part by part, the same values as whole ones, and keeps this process's rows."""
        self._ranks = ranks
        super().__init__(spec, generator)

    def rows_at(self, dim: int, rows: IntArray) -> tuple[Tensor, IntArray]:
        """Returns the distinct rows [U, d], fetched from their owners, and where among them each row lies [n]."""
        distinct, places = np.unique(rows, return_inverse=True)
        route = _Route(distinct, self._ranks, self.table(dim).device)
        vectors = route.back(self.table(dim)[route.there(route.places)])
        return vectors, places.reshape(-1)

    def moved_here(self, found: Sequence[RowGradients]) -> list[RowGradients]:
        """Returns the gradients of this process's rows, by their places in its tables, summed over all processes.

        Args:
            found: the rows that this process read; a table that it did not read may be left out.
        """
        mine = {one.dim: one for one in found}
        made = []
        for dim in self.dims:
            table = self.table(dim)
            own = mine.get(dim)
            rows = np.zeros(0, np.int64) if own is None else own.rows.cpu().numpy()
            gradient = table.new_zeros(0, dim) if own is None else own.gradient
            route = _Route(rows, self._ranks, table.device)
            places, gradients = route.there(route.places), route.there(gradient[route.order])
            if len(places):
                made.append(sums_by_row(dim, places, gradients))
        return made

    def put(self, dim: int, rows: IntArray, source: Tensor, source_rows: IntArray) -> None:
        """Writes rows of another table over those of these rows that are this process's."""
        is_own = rows % self._ranks.count == self._ranks.rank
        super().put(dim, rows[is_own] // self._ranks.count, source, source_rows[is_own])

    def blocks(self, dim: int) -> Iterator[Tensor]:
        """Yields the whole table in parts, in every process."""
        count = self._ranks.count
        place = exchange_device()
        for begin in range(0, self.sizes[dim], BLOCK_ROWS * count):
            rows = min(BLOCK_ROWS * count, self.sizes[dim] - begin)
            own = self.table(dim)[begin // count : begin // count + BLOCK_ROWS].to(place)
            yield self._ranks.gathered(own, rows).cpu()

    def mean_length(self, dim: int, first: int, end: int) -> float:
        """Returns the mean length of rows first .. end - 1 of the whole table, 0 where there is none."""
        rank, count = self._ranks.rank, self._ranks.count
        low, high = (-(-(bound - rank) // count) for bound in (first, end))
        total = self.table(dim)[low:high].norm(dim=1).double().sum().to(exchange_device())
        self._ranks.add_up([total])
        return float(total) / (end - first) if end > first else 0.0

    def _drawn(self, dim: int, generator: torch.Generator) -> Tensor:
        rank, count, size = self._ranks.rank, self._ranks.count, self.sizes[dim]
        held = torch.empty(len(range(rank, size, count)), dim)
        for begin, end in _parts(size, dim):
            drawn = torch.empty(end - begin, dim).normal_(0.0, INITIAL_STD, generator=generator)
            own = drawn[(rank - begin) % count :: count]
            first = -(-(begin - rank) // count)
            held[first : first + len(own)] = own
        if rank == 0:
            held[0] = 0.0
        return held


class _Route:
    """Which of some rows lie in which process, and the way there and back."""

    def __init__(self, rows: IntArray, ranks: Ranks, device: torch.device) -> None:
        owner = rows % ranks.count
        order = np.argsort(owner, kind="stable")
        self.order = torch.from_numpy(order).to(device)
        """The rows by owner."""
        self.places = torch.from_numpy((rows // ranks.count)[order]).to(device)
        """Place of each of them in its owner's table."""
        asked = torch.from_numpy(np.bincount(owner, minlength=ranks.count)).to(device)
        answered = torch.empty_like(asked)
        dist.all_to_all_single(answered, asked)
        self._sent, self._received = asked.tolist(), answered.tolist()

    def there(self, values: Tensor) -> Tensor:
        """Returns what all processes sent to this one, process by process; `values` are by owner."""
        return _exchanged(values, self._sent, self._received)

    def back(self, values: Tensor) -> Tensor:
        """Returns what the owners answered, in the order in which the rows were given."""
        answers = _exchanged(values, self._received, self._sent)
        return torch.empty_like(answers).index_copy_(0, self.order, answers)


def _exchanged(values: Tensor, sent: list[int], received: list[int]) -> Tensor:
    found = values.new_empty(sum(received), *values.shape[1:])
    dist.all_to_all_single(found, values.contiguous(), received, sent)
    return found


def _parts(size: int, dim: int) -> Iterator[tuple[int, int]]:
    """Yields first and end rows of parts that are drawn as the whole is: all but the last of a multiple of `_ALIKE` values."""
    begin = 0
    while begin < size:
        # What is left behind a part must not be so short that torch would draw it value by value.
        end = begin + BLOCK_ROWS if (size - begin - BLOCK_ROWS) * dim >= _ALIKE else size
        yield begin, end
        begin = end
