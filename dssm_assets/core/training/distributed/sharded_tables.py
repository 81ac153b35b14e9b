"""Embedding tables of which each process holds a shard, for tables that do not fit into one process.

Row r is in process r mod W, at position r div W, with its optimiser moments and its average. A look-up asks the
owners for its distinct rows (one exchange of row numbers, one of vectors). After backward the gradients of these rows
travel the same way back; the owner adds them up in the order of the processes and updates the row. So the result equals
that of whole tables in every process, bit for bit, with 1 / W of the memory.

All exchanges are `torch.distributed`, on gloo and NCCL alike. On a cluster of GPUs, torchrec's sharded collections could
replace this class: they would implement the methods of `EmbeddingTables` from `locate_rows` to `mean_length`, and
`send_to_owners`.

Letters: W processes, n requested rows, U distinct rows, d width of a table.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from dssm_assets.core.arrays.ragged import IntArray
from dssm_assets.core.models.embedding import INITIAL_STD, EmbeddingTables
from dssm_assets.core.models.tower_spec import TowerSpec
from dssm_assets.core.training.optimisers import RowGradients

if TYPE_CHECKING:
    from dssm_assets.core.training.compute import Ranks

BLOCK_ROWS = 1 << 16
_DRAWN_TOGETHER = 16
"""torch draws this many values at a time: parts of a table in multiples of it get the same values as the whole table."""


class ShardedTables(EmbeddingTables):
    """The fused tables, of which this process holds every W-th row. All processes must call each method together."""

    def __init__(self, spec: TowerSpec, generator: torch.Generator, ranks: Ranks) -> None:
        """Draws the same values as whole tables, part by part, and keeps this process's rows."""
        self._ranks = ranks
        super().__init__(spec, generator)

    def locate_rows(self, dim: int, rows: IntArray) -> tuple[Tensor, IntArray]:
        """Returns the distinct rows [U, d], fetched from their owners, and the place of each row among them [n]."""
        distinct, places = np.unique(rows, return_inverse=True)
        route = _Route(distinct, self._ranks, self.table(dim).device)
        vectors = route.send_back(self.table(dim)[route.send(route.places)])
        return vectors, places.reshape(-1)

    def send_to_owners(self, read: RowGradients) -> tuple[Tensor, Tensor]:
        """Sends what this process read to the owners; returns the places and gradients of what all read of its shard, by process."""
        route = _Route(read.rows.cpu().numpy(), self._ranks, read.rows.device)
        return route.send(route.places), route.send(read.gradient[route.order])

    def write_rows(self, dim: int, rows: IntArray, source: Tensor, source_rows: IntArray) -> None:
        """Copies rows of another table over these rows, as far as this process owns them."""
        is_own = rows % self._ranks.count == self._ranks.rank
        super().write_rows(dim, rows[is_own] // self._ranks.count, source, source_rows[is_own])

    def blocks(self, dim: int) -> Iterator[Tensor]:
        count = self._ranks.count
        device = exchange_device()
        for begin in range(0, self.sizes[dim], BLOCK_ROWS * count):
            rows = min(BLOCK_ROWS * count, self.sizes[dim] - begin)
            own = self.table(dim)[begin // count : begin // count + BLOCK_ROWS].to(device)
            yield self._ranks.gather(own, rows).cpu()

    def mean_length(self, dim: int, first: int, end: int) -> float:
        rank, count = self._ranks.rank, self._ranks.count
        low, high = (-(-(bound - rank) // count) for bound in (first, end))
        total = self.table(dim)[low:high].norm(dim=1).double().sum().to(exchange_device())
        dist.all_reduce(total)
        return float(total) / (end - first) if end > first else 0.0

    def _draw_table(self, dim: int, generator: torch.Generator) -> Tensor:
        rank, count, size = self._ranks.rank, self._ranks.count, self.sizes[dim]
        shard = torch.empty(len(range(rank, size, count)), dim)
        for begin, end in _parts(size, dim):
            drawn = torch.empty(end - begin, dim).normal_(0.0, INITIAL_STD, generator=generator)
            own = drawn[(rank - begin) % count :: count]
            first = -(-(begin - rank) // count)
            shard[first : first + len(own)] = own
        if rank == 0:
            shard[0] = 0.0
        return shard


class _Route:
    """Which process owns each of some rows, and the exchange with the owners."""

    def __init__(self, rows: IntArray, ranks: Ranks, device: torch.device) -> None:
        owner = rows % ranks.count
        order = np.argsort(owner, kind="stable")
        self.order = torch.from_numpy(order).to(device)
        """The rows by owner."""
        self.places = torch.from_numpy((rows // ranks.count)[order]).to(device)
        """Place of each of them in its owner's shard."""
        sent = torch.from_numpy(np.bincount(owner, minlength=ranks.count)).to(device)
        received = torch.empty_like(sent)
        dist.all_to_all_single(received, sent)
        self._sent, self._received = sent.tolist(), received.tolist()

    def send(self, values: Tensor) -> Tensor:
        """Sends values, which are by owner, to the owners; returns what all processes sent here, by process."""
        return _exchange(values, self._sent, self._received)

    def send_back(self, values: Tensor) -> Tensor:
        """Sends an answer for each received value; returns the owners' answers in the order of the rows."""
        answers = _exchange(values, self._received, self._sent)
        return torch.empty_like(answers).index_copy_(0, self.order, answers)


def exchange_device() -> torch.device:
    """Returns the device whose tensors the processes can exchange."""
    return torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")


def _exchange(values: Tensor, sent: list[int], received: list[int]) -> Tensor:
    found = values.new_empty(sum(received), *values.shape[1:])
    dist.all_to_all_single(found, values.contiguous(), received, sent)
    return found


def _parts(size: int, dim: int) -> Iterator[tuple[int, int]]:
    """Yields begin and end of parts that are drawn as the whole table would be."""
    begin = 0
    while begin < size:
        # The rest behind a part must not be so short that torch would draw it value by value.
        end = begin + BLOCK_ROWS if (size - begin - BLOCK_ROWS) * dim >= _DRAWN_TOGETHER else size
        yield begin, end
        begin = end
