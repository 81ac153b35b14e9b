"""Shares every batch among several processes. Their number changes the speed, not the result.

Every process draws the same batch, reads its own part of the features and histories (`core/training/batches.py`) and runs
both towers over this part. The item vectors are exchanged, so that every sample is scored against all items of the batch.
Gradients and the sums of batch norms are added up. So all processes make the same updates and stay equal, bit for bit. Only
dropout is drawn by each process for its own rows.

Tables too large for one process are sharded (`ShardedTables`).

Letters: W processes, M rows of all processes, D vector width; n requested rows, U distinct rows, d width of a table.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from dssm_assets.core.arrays.ragged import IntArray
from dssm_assets.core.models.embedding import INITIAL_STD, EmbeddingTables, weighted_sums
from dssm_assets.core.models.tower import BatchNorm
from dssm_assets.core.models.tower_spec import TowerSpec
from dssm_assets.core.models.two_tower import TwoTower
from dssm_assets.core.training.compute import Ranks
from dssm_assets.core.training.optimisers import RowGradients

BLOCK_ROWS = 1 << 16
_DRAWN_TOGETHER = 16
"""torch draws so many values at a time. Parts of a table whose sizes are multiples of it get the values of the whole table."""


class ProcessGroup(Ranks):
    """One of W processes that share every batch. They communicate through torch's default process group."""

    def __init__(self, rank: int, count: int) -> None:
        self.rank, self.count = rank, count

    def new_towers(self, spec: TowerSpec, generator: torch.Generator, *, shard_tables: bool) -> TwoTower:
        """Returns towers whose batch norms cover the rows of all processes, with sharded tables if configured."""
        towers = TwoTower(spec, generator, ShardedTables(spec, generator, self) if shard_tables else None)
        for norm in (module for module in towers.modules() if isinstance(module, BatchNorm)):
            norm.add_up = sum_tensor
        return towers

    def seed_dropout(self, generator: torch.Generator, seed: int, step: int) -> None:
        """Seeds a step's dropout from seed, rank and step, so that a stored state does not have to hold W generators."""
        words = np.random.SeedSequence([seed, self.rank, step]).generate_state(1)
        generator.manual_seed(int(words[0]))

    def gather(self, vectors: Tensor, count: int) -> Tensor:
        whole: Tensor = _Gather.apply(vectors, count, self)  # type: ignore[no-untyped-call]
        return whole

    def gather_items(self, items: Tensor, num_shared: int) -> Tensor:
        """Returns the vectors of the M shared items, followed by the vectors of this process's own hard negatives."""
        own = len(self.rows(num_shared))
        return torch.cat([self.gather(items[:own], num_shared), items[own:]])

    def sum_gradients(self, module: nn.Module) -> None:
        parameters = list(module.parameters())
        gradients = [torch.zeros_like(one) if one.grad is None else one.grad for one in parameters]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        dist.all_reduce(flat)
        for parameter, part in zip(parameters, torch.split(flat, [one.numel() for one in parameters]), strict=True):
            parameter.grad = part.view_as(parameter)

    def sum_row_gradients(self, found: Sequence[RowGradients], tables: EmbeddingTables) -> list[RowGradients]:
        """Returns all rows that any process has read, and their gradients, summed in the order of the processes.

        If the tables are sharded, it returns only the rows that this process owns.
        """
        by_dim = {gradients.dim: gradients for gradients in found}
        summed = []
        for dim in tables.dims:
            table = tables.table(dim)
            none = RowGradients(dim, torch.zeros(0, dtype=torch.int64, device=table.device), table.new_zeros(0, dim))
            own = by_dim.get(dim, none)
            if isinstance(tables, ShardedTables):
                rows, gradients = tables.send_to_owners(own)
            else:
                rows, gradients = self._concatenate(own.rows), self._concatenate(own.gradient)
            if len(rows):
                summed.append(_sum_by_row(dim, rows, gradients))
        return summed

    def sum_loss(self, loss: Tensor) -> float:
        return float(_summed(loss.detach().reshape(1)))

    def from_first(self, values: Sequence[float]) -> list[float]:
        numbers = torch.tensor(list(values), dtype=torch.float64, device=exchange_device())
        dist.broadcast(numbers, 0)
        return [float(value) for value in numbers]

    def is_same(self, value: float) -> bool:
        ends = torch.tensor([value, -value], dtype=torch.float64, device=exchange_device())
        dist.all_reduce(ends, dist.ReduceOp.MAX)
        return float(ends[0]) == -float(ends[1])

    def wait(self) -> None:
        dist.barrier()

    def _concatenate(self, part: Tensor) -> Tensor:
        """Returns the rows of all processes, one process after another. Each may have another number of rows."""
        counts = [torch.zeros(1, dtype=torch.int64, device=part.device) for _ in range(self.count)]
        dist.all_gather(counts, torch.tensor([len(part)], device=part.device))
        longest = max(int(count) for count in counts)
        padded = part.new_zeros(longest, *part.shape[1:])
        padded[: len(part)] = part
        received = [torch.empty_like(padded) for _ in range(self.count)]
        dist.all_gather(received, padded)
        return torch.cat([rows[: int(count)] for rows, count in zip(received, counts, strict=True)])


def sum_tensor(tensor: Tensor) -> Tensor:
    """Sums a tensor over the processes. In the backward pass its gradients are summed, too."""
    total: Tensor = _Sum.apply(tensor)  # type: ignore[no-untyped-call]
    return total


def _sum_by_row(dim: int, rows: Tensor, gradients: Tensor) -> RowGradients:
    """Returns the distinct rows of all processes, and each row's gradient, summed in the order of the processes."""
    read = rows.cpu().numpy()
    order = np.argsort(read, kind="stable")
    starts = np.flatnonzero(np.diff(read[order], prepend=-1))
    summed = weighted_sums(gradients, order, np.append(starts, len(order)), None)
    return RowGradients(dim, torch.from_numpy(read[order][starts]).to(rows.device), summed)


def _summed(tensor: Tensor) -> Tensor:
    total = tensor.clone()
    dist.all_reduce(total)
    return total


class _Sum(torch.autograd.Function):
    """The sum over the processes. The loss of every process depends on the sum, so the gradients are summed as well."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return _summed(tensor)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return _summed(gradients[0])


class _Gather(torch.autograd.Function):
    """Gathers the rows of all processes: row k of process r becomes row k * W + r."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, count: int, ranks: Ranks) -> Tensor:
        ctx.ranks, ctx.count = ranks, count
        padded = vectors.new_zeros(-(-count // ranks.count), *vectors.shape[1:])
        padded[: len(vectors)] = vectors
        received = [torch.empty_like(padded) for _ in range(ranks.count)]
        dist.all_gather(received, padded)
        return torch.stack(received, 1).reshape(-1, *vectors.shape[1:])[:count]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        whole = _summed(gradients[0])  # the loss of every process depends on all rows
        return whole[ctx.ranks.rank :: ctx.ranks.count], None, None


class ShardedTables(EmbeddingTables):
    """The fused tables, of which this process holds every W-th row. All processes must call each method together.

    Process r mod W owns row r, at position r div W of its shard, with its optimiser moments and its average. A look-up fetches its
    distinct rows from their owners: it exchanges row numbers, then vectors. After the backward pass each gradient goes to the owner,
    which sums the gradients in the order of the processes and updates the row. So the result is the same, bit for bit, as with
    whole tables in every process. It needs 1 / W of the memory.

    All exchanges use `torch.distributed`, with gloo or NCCL. On a cluster of GPUs, torchrec's sharded collections could replace
    this class. They would have to implement the methods of `EmbeddingTables` from `locate_rows` to `blocks`, and `send_to_owners`.
    """

    def __init__(self, spec: TowerSpec, generator: torch.Generator, ranks: Ranks) -> None:
        """Draws the values of the whole tables, part by part, and keeps only the rows of this process."""
        self._ranks = ranks
        super().__init__(spec, generator)

    def locate_rows(self, dim: int, rows: IntArray) -> tuple[Tensor, IntArray]:
        """Fetches the distinct ones of some rows from their owners [U, d], and returns each row's position among these [n]."""
        distinct, places = np.unique(rows, return_inverse=True)
        route = _Route(distinct, self._ranks, self.table(dim).device)
        vectors = route.send_back(self.table(dim)[route.send(route.places)])
        return vectors, places.reshape(-1)

    def send_to_owners(self, read: RowGradients) -> tuple[Tensor, Tensor]:
        """Sends row gradients to the owners. Returns the positions and gradients received for this shard, by sending process."""
        route = _Route(read.rows.cpu().numpy(), self._ranks, read.rows.device)
        return route.send(route.places), route.send(read.gradient[route.order])

    def write_rows(self, dim: int, rows: IntArray, source: Tensor, source_rows: IntArray) -> None:
        """Overwrites some rows with rows of another table. Each process writes the rows that it owns."""
        is_own = rows % self._ranks.count == self._ranks.rank
        super().write_rows(dim, rows[is_own] // self._ranks.count, source, source_rows[is_own])

    def blocks(self, dim: int) -> Iterator[Tensor]:
        count = self._ranks.count
        device = exchange_device()
        for begin in range(0, self.sizes[dim], BLOCK_ROWS * count):
            rows = min(BLOCK_ROWS * count, self.sizes[dim] - begin)
            own = self.table(dim)[begin // count : begin // count + BLOCK_ROWS].to(device)
            yield self._ranks.gather(own, rows).cpu()

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
    """Finds the owner of each of some rows, and exchanges values with the owners."""

    def __init__(self, rows: IntArray, ranks: Ranks, device: torch.device) -> None:
        owner = rows % ranks.count
        order = np.argsort(owner, kind="stable")
        self.order = torch.from_numpy(order).to(device)
        """The positions of the rows, sorted by owner."""
        self.places = torch.from_numpy((rows // ranks.count)[order]).to(device)
        """The position of each sorted row in its owner's shard."""
        sent = torch.from_numpy(np.bincount(owner, minlength=ranks.count)).to(device)
        received = torch.empty_like(sent)
        dist.all_to_all_single(received, sent)
        self._sent, self._received = sent.tolist(), received.tolist()

    def send(self, values: Tensor) -> Tensor:
        """Sends values, sorted by owner, to the owners. Returns the values received here, sorted by sending process."""
        return _exchange(values, self._sent, self._received)

    def send_back(self, values: Tensor) -> Tensor:
        answers = _exchange(values, self._received, self._sent)
        return torch.empty_like(answers).index_copy_(0, self.order, answers)


def exchange_device() -> torch.device:
    """Returns the device on which the process group exchanges tensors: the GPU with NCCL, else the CPU."""
    return torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")


def _exchange(values: Tensor, sent: list[int], received: list[int]) -> Tensor:
    found = values.new_empty(sum(received), *values.shape[1:])
    dist.all_to_all_single(found, values.contiguous(), received, sent)
    return found


def _parts(size: int, dim: int) -> Iterator[tuple[int, int]]:
    """Yields the first and last + 1 row of parts of a table. Drawn one by one, they get the values of the whole table."""
    begin = 0
    while begin < size:
        # The last part must not be so short that torch would draw it value by value.
        end = begin + BLOCK_ROWS if (size - begin - BLOCK_ROWS) * dim >= _DRAWN_TOGETHER else size
        yield begin, end
        begin = end
