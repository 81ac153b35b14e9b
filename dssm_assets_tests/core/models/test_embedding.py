"""Fused tables: ranges of rows, missing is zero, pooled look-ups by hand."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch

from dssm_assets.core.arrays.bags import mean_bags
from dssm_assets.core.config.model import Model
from dssm_assets.core.models.embedding import EmbeddingTables, Lookup, gather_rows
from dssm_assets.core.models.tower_input import TowerInput
from dssm_assets.core.models.tower_spec import TowerSide, tower_spec
from dssm_assets_tests.core.models.features import tower_feature

A, B = tower_feature("a", TowerSide.USER, rows=3), tower_feature("b", TowerSide.USER, rows=4)
C, ITEM = tower_feature("c", TowerSide.USER, dim=3, rows=2), tower_feature("item")
H = tower_feature("h", TowerSide.SEQUENCE, "item")
SPEC = tower_spec([A, B, C, ITEM, H], Model())


def _tables() -> EmbeddingTables:
    tables = EmbeddingTables(SPEC, torch.Generator().manual_seed(0))
    for dim in tables.dims:
        rows = len(tables.table(dim))
        tables.table(dim)[1:] = torch.arange(1.0, rows)[:, None] * torch.ones(dim)
    return tables


def test_one_table_per_width_and_one_shared_row_for_missing() -> None:
    tables = EmbeddingTables(SPEC, torch.Generator().manual_seed(0))
    assert tables.dims == (2, 3)
    # Width 2: row 0 for missing, then a has 2 rows, b 3, item 4 (shared with h). Width 3: row 0, then c has 1.
    assert tables.table(2).shape == (10, 2)
    assert tables.table(3).shape == (2, 3)
    assert tables.bases == {"a": 0, "b": 2, "c": 0, "item": 5}
    assert not tables.table(2)[0].any()
    assert tables.table(2)[1:].all()


def test_lookup_orders_features_by_width_and_missing_is_zero() -> None:
    tables = _tables()
    groups = tables.groups([A, B, C], [H])
    # a index 2 -> row 2; b index 3 -> row 5; c index 1 -> row 1 of width 3; h values 1 and 4 -> rows 6 and 9, mean 7.5.
    inputs = TowerInput(np.array([[2, 3, 1], [0, 1, 0]]), (mean_bags(np.array([1, 4]), np.array([0, 2, 2])),))
    tape: list[Lookup] = []
    found = tables.lookup(groups, inputs, tape)
    assert found.tolist() == [[2, 2, 5, 5, 7.5, 7.5, 1, 1, 1], [0, 0, 3, 3, 0, 0, 0, 0, 0]]
    assert [lookup.dim for lookup in tape] == [2, 3]


@pytest.mark.parametrize("start", [0, 1])
def test_rows_are_read_at_any_address_without_a_copy_of_the_table(start: int) -> None:
    data = np.zeros(start + 4 * 400_000, np.uint8)
    data[start:].view("<f4")[:] = np.arange(400_000)
    table = torch.from_numpy(data[start:].view("<f4").reshape(-1, 4))
    tracemalloc.start()
    found = gather_rows(table, np.array([99_999, 0, 7]))
    assert tracemalloc.get_traced_memory()[1] < 100_000
    tracemalloc.stop()
    assert found.tolist() == [[399_996, 399_997, 399_998, 399_999], [0, 1, 2, 3], [28, 29, 30, 31]]
