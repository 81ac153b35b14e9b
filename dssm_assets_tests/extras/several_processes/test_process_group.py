"""The exchanges between two real processes."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.distributed as dist

from dssm_assets.core.config.model import Model
from dssm_assets.core.models.embedding import EmbeddingTables
from dssm_assets.core.models.tower_spec import TowerFeature, TowerSide, tower_spec
from dssm_assets.core.training.compute import SINGLE_PROCESS
from dssm_assets.core.training.optimisers import RowGradients
from dssm_assets.extras.several_processes.process_group import ProcessGroup, sum_tensor
from dssm_assets_tests import quick_processes


def _tables() -> EmbeddingTables:
    """Returns a table of one column and one of two."""
    features = [
        TowerFeature(name=name, side=side, embedding_name=name, embedding_dim=dim, num_embeddings=9)
        for name, side, dim in (("u", TowerSide.USER, 1), ("i", TowerSide.ITEM, 2))
    ]
    return EmbeddingTables(tower_spec(features, Model(history_length=0)), torch.Generator().manual_seed(0))


def test_rows_are_sharded_in_turn() -> None:
    assert [ProcessGroup(rank, 3).rows(7).tolist() for rank in range(3)] == [[0, 3, 6], [1, 4], [2, 5]]
    assert ProcessGroup(2, 3).rows(2).tolist() == []
    assert (SINGLE_PROCESS.rows(2).tolist(), SINGLE_PROCESS.is_first, ProcessGroup(1, 2).is_first) == ([0, 1], True, False)


def _exchange(rank: int, path: str) -> None:
    """Runs in each of two processes; a failed assertion ends it with an error."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=2)
    ranks = ProcessGroup(rank, 2)
    # Rows 0 .. 4 with vectors (row, 10 row): process 0 has 0, 2, 4, process 1 has 1, 3.
    own = torch.tensor([[float(row), 10.0 * row] for row in ranks.rows(5)], requires_grad=True)
    whole = ranks.gather(own, 5)
    assert whole.tolist() == [[row, 10 * row] for row in range(5)]
    # Process r weighs row k with (k + 1) (r + 1): the gradients of both are summed, 3 (k + 1).
    weights = torch.arange(1.0, 6.0)[:, None] * (rank + 1)
    (whole * weights).sum().backward()  # type: ignore[no-untyped-call]
    assert own.grad is not None
    assert own.grad[:, 0].tolist() == [3.0 * (row + 1) for row in ranks.rows(5)]
    # Rows 2, 5 and 5, 7: the row of both is summed. A table that one process did not read is still exchanged.
    rows = [torch.tensor([2, 5]), torch.tensor([5, 7])][rank]
    found = [RowGradients(1, rows, torch.tensor([[1.0], [10.0]]) * (rank + 1))]
    found += [RowGradients(2, torch.tensor([3]), torch.ones(1, 2))] if rank else []
    (narrow, wide) = ranks.sum_row_gradients(found, _tables())
    assert (narrow.rows.tolist(), narrow.gradient.tolist()) == ([2, 5, 7], [[1.0], [12.0], [20.0]])
    assert (wide.rows.tolist(), wide.gradient.tolist()) == ([3], [[1.0, 1.0]])
    pair, single = (torch.nn.Parameter(torch.zeros(shape)) for shape in ([2], []))
    pair.grad, single.grad = torch.tensor([1.0, 2.0]) * (rank + 1), torch.tensor(1.0) if rank else None
    ranks.sum_gradients(torch.nn.ParameterList([pair, single]))
    assert [one.grad.tolist() for one in (pair, single) if one.grad is not None] == [[3.0, 6.0], 1.0]
    assert ranks.from_first([0.5 + rank, 7.0]) == [0.5, 7.0]
    assert ranks.is_same(3.5)
    assert not ranks.is_same(float(rank))
    # Each process's loss is (rank + 1) x total: the total's gradient is 3 in both.
    part = torch.tensor([1.0 + rank], requires_grad=True)
    total = sum_tensor(part)
    (total * (rank + 1)).sum().backward()  # type: ignore[no-untyped-call]
    assert part.grad is not None
    assert (total.tolist(), part.grad.tolist()) == ([3.0], [3.0])
    dist.destroy_process_group()


def test_two_processes_exchange_rows_sums_and_gradients(tmp_path: Path) -> None:
    quick_processes.start(_exchange, str(tmp_path / "group"))
