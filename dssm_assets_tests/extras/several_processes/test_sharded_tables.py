"""Shards hold the rows of whole tables. Fits with sharded tables: test_shared_fits."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dssm_assets.core.config.model import Model
from dssm_assets.core.models.embedding import EmbeddingTables
from dssm_assets.core.models.tower_spec import TowerFeature, TowerSide, tower_spec
from dssm_assets.extras.several_processes import process_group
from dssm_assets.extras.several_processes.process_group import ProcessGroup, ShardedTables

FEATURES = [
    TowerFeature(name=name, side=side, embedding_name=name, embedding_dim=dim, num_embeddings=rows)
    for name, side, dim, rows in (("u", TowerSide.USER, 4, 3), ("i", TowerSide.ITEM, 8, 90), ("j", TowerSide.ITEM, 4, 70))
]
SPEC = tower_spec(FEATURES, Model(history_length=0))


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


@pytest.mark.parametrize("block_rows", [4, 8, 16, 1 << 16])
@pytest.mark.parametrize("count", [2, 3])
def test_shard_is_drawn_as_the_whole_table(block_rows: int, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # 72 rows of 4 and 90 of 8: a last part may be of few values, which torch would draw in another way alone.
    monkeypatch.setattr(process_group, "BLOCK_ROWS", block_rows)
    generator = _generator()
    whole = EmbeddingTables(SPEC, generator)
    after = torch.rand(1, generator=generator)
    for rank in range(count):
        generator = _generator()
        sharded = ShardedTables(SPEC, generator, ProcessGroup(rank, count))
        assert torch.rand(1, generator=generator) == after
        for dim in whole.dims:
            assert torch.equal(sharded.table(dim), whole.table(dim)[rank::count])


def test_write_rows_writes_the_rows_of_the_shard() -> None:
    rows, source = np.array([1, 5, 2, 8]), torch.arange(40.0).reshape(10, 4)
    whole = EmbeddingTables(SPEC, _generator())
    whole.write_rows(4, rows, source, np.array([9, 8, 7, 6]))
    for rank in range(3):
        sharded = ShardedTables(SPEC, _generator(), ProcessGroup(rank, 3))
        sharded.write_rows(4, rows, source, np.array([9, 8, 7, 6]))
        assert torch.equal(sharded.table(4), whole.table(4)[rank::3])
