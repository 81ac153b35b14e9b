"""Several processes that share every batch: the world size changes the speed, not the meaning.

Every process draws the same batch, reads its own share of the features and histories (`shared_batches`) and runs both
towers over it. Item vectors are exchanged, so that every row meets all columns of the batch; gradients, and the sums of
batch norms, are summed. All processes make the same moves and stay equal, bit for bit. Dropout is drawn by each process
for its own rows.

Belongs here: the exchanges and the sums. Does not belong here: starting processes (`steps`), what is learned from a batch
(`trainer`), tables that are dealt out too (`sharded_tables`).

Letters: W processes, M rows of all, D vector width, U rows of a table that were read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from dssm_assets.core.arrays.ragged import IntArray
from dssm_assets.core.models.embedding import weighted_sums
from dssm_assets.core.training.optimisers import RowGradients


@dataclass(frozen=True)
class Ranks:
    """This process among those that share the batches; alone by default.

    Attributes:
        rank: number of this process, from 0.
        count: W.
    """

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process reports, stores and decides."""
        return self.rank == 0

    def rows(self, count: int) -> IntArray:
        """Returns which of so many rows are this process's."""
        return np.arange(self.rank, count, self.count, dtype=np.int64)

    def gathered(self, vectors: Tensor, count: int) -> Tensor:
        """Returns the vectors of all rows [M, D] out of each process's share; gradients find their way back."""
        if self.count == 1:
            return vectors
        whole: Tensor = _Gather.apply(vectors, count, self)  # type: ignore[no-untyped-call]
        return whole

    def summed(self, tensor: Tensor) -> Tensor:
        """Returns the sum of a tensor over the processes; so is its gradient."""
        total: Tensor = _Sum.apply(tensor)  # type: ignore[no-untyped-call]
        return total

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replaces every tensor by its sum over the processes."""
        if self.count == 1 or not tensors:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(flat)
        parts = torch.split(flat, [tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))

    def summed_rows(self, found: Sequence[RowGradients], widths: dict[int, Tensor]) -> list[RowGradients]:
        """Returns the rows that any process read and their gradients, summed in the order of the processes.

        Args:
            found: of this process; a table that it did not read may be left out.
            widths: table by dim, for the type and place of gradients.
        """
        if self.count == 1:
            return list(found)
        mine = {one.dim: one for one in found}
        made = []
        for dim, table in widths.items():
            none = RowGradients(dim, torch.zeros(0, dtype=torch.int64, device=table.device), table.new_zeros(0, dim))
            own = mine.get(dim, none)
            rows, gradients = self._all_of(own.rows), self._all_of(own.gradient)
            if len(rows):
                made.append(sums_by_row(dim, rows, gradients))
        return made

    def from_first(self, values: Sequence[float]) -> list[float]:
        """Returns the first process's numbers in every process."""
        if self.count == 1:
            return list(values)
        told = torch.tensor(list(values), dtype=torch.float64, device=exchange_device())
        dist.broadcast(told, 0)
        return [float(value) for value in told]

    def is_same(self, value: float) -> bool:
        """Tells whether all processes have this number."""
        if self.count == 1:
            return True
        ends = torch.tensor([value, -value], dtype=torch.float64, device=exchange_device())
        dist.all_reduce(ends, dist.ReduceOp.MAX)
        return float(ends[0]) == -float(ends[1])

    def wait(self) -> None:
        """Returns when every process has come here."""
        if self.count > 1:
            dist.barrier()

    def _all_of(self, share: Tensor) -> Tensor:
        """Returns every process's rows, one process after the other; they may have different numbers of them."""
        counts = [torch.zeros(1, dtype=torch.int64, device=share.device) for _ in range(self.count)]
        dist.all_gather(counts, torch.tensor([len(share)], device=share.device))
        longest = max(int(count) for count in counts)
        padded = share.new_zeros(longest, *share.shape[1:])
        padded[: len(share)] = share
        held = [torch.empty_like(padded) for _ in range(self.count)]
        dist.all_gather(held, padded)
        return torch.cat([part[: int(count)] for part, count in zip(held, counts, strict=True)])


ALONE = Ranks()


class _Sum(torch.autograd.Function):
    """The sum over the processes, of which every process's loss has the gradient."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


class _Gather(torch.autograd.Function):
    """Row k of process r is row k * W + r of all."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, count: int, ranks: Ranks) -> Tensor:
        ctx.ranks, ctx.count = ranks, count
        padded = vectors.new_zeros(-(-count // ranks.count), *vectors.shape[1:])
        padded[: len(vectors)] = vectors
        held = [torch.empty_like(padded) for _ in range(ranks.count)]
        dist.all_gather(held, padded)
        return torch.stack(held, 1).reshape(-1, *vectors.shape[1:])[:count]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        whole = gradients[0].clone()
        dist.all_reduce(whole)  # every process's loss depends on all rows
        return whole[ctx.ranks.rank :: ctx.ranks.count], None, None


def sums_by_row(dim: int, rows: Tensor, gradients: Tensor) -> RowGradients:
    """Returns the distinct rows among those of all processes and the sum of each one's gradients, in their order."""
    read = rows.cpu().numpy()
    order = np.argsort(read, kind="stable")
    starts = np.flatnonzero(np.diff(read[order], prepend=-1))
    summed = weighted_sums(gradients, order, np.append(starts, len(order)), None)
    return RowGradients(dim, torch.from_numpy(read[order][starts]).to(rows.device), summed)


def exchange_device() -> torch.device:
    """Returns where tensors must lie to be exchanged."""
    return torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")
