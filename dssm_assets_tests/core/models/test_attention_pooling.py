"""Attention by hand, row by row, and its gradient against finite differences down to the rows of the tables."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from dssm_assets.core.arrays.bags import Bags
from dssm_assets.core.config.model import Model
from dssm_assets.core.models.embedding import EmbeddingTables, Lookup
from dssm_assets.core.models.event_layers import AttentionPooling
from dssm_assets.core.models.tower_spec import TowerSide, tower_spec
from dssm_assets.core.training.optimisers import row_gradients
from dssm_assets_tests.core.models.features import tower_feature


def _pooling(width: int, interests: int) -> AttentionPooling:
    return AttentionPooling(width, interests, torch.Generator().manual_seed(1))


def test_weights_are_a_softmax_over_each_rows_history() -> None:
    pooling = _pooling(2, 1)
    with torch.no_grad():
        pooling.hidden.weight.copy_(torch.eye(2))
        pooling.score.weight.copy_(torch.tensor([[2.0, 0.0]]))
    vectors = torch.tensor([[1.0, 0.0], [0.0, 3.0], [5.0, 7.0]])
    # Scores 2 tanh(1) and 0: the first weighs e / (e + 1) of its row with e = exp(2 tanh 1). One item is itself, none is 0.
    weight = math.exp(2 * math.tanh(1)) / (math.exp(2 * math.tanh(1)) + 1)
    found = pooling(vectors, np.array([0, 2, 2, 3])).squeeze(1).tolist()
    assert found == [pytest.approx([weight, 3 * (1 - weight)]), [0.0, 0.0], pytest.approx([5.0, 7.0])]


def test_each_interest_has_its_own_weights() -> None:
    pooling = _pooling(2, 2)
    with torch.no_grad():
        pooling.hidden.weight.copy_(torch.eye(2))
        pooling.score.weight.copy_(torch.tensor([[9.0, -9.0], [-9.0, 9.0]]))
    found = pooling(torch.tensor([[4.0, 0.0], [0.0, 4.0]]), np.array([0, 2]))
    assert found.shape == (1, 2, 2)
    assert found[0].tolist() == [pytest.approx([4.0, 0.0], abs=1e-6), pytest.approx([0.0, 4.0], abs=1e-6)]


def test_a_batch_equals_its_rows_one_by_one() -> None:
    pooling, rng = _pooling(3, 2), np.random.default_rng(0)
    lengths = np.array([4, 0, 1, 7, 0])
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    vectors = torch.from_numpy(rng.normal(size=(12, 3)).astype(np.float32))
    whole = pooling(vectors, offsets)
    for row, (begin, end) in enumerate(itertools.pairwise(offsets)):
        alone = pooling(vectors[begin:end], np.array([0, end - begin]))
        torch.testing.assert_close(whole[row], alone[0])
    assert not whole[1].any()


def test_rows_without_history_pool_to_zero() -> None:
    assert _pooling(3, 2)(torch.zeros(0, 3), np.zeros(5, np.int64)).tolist() == np.zeros((4, 2, 3)).tolist()


def test_gradients_reach_the_rows_of_the_tables_and_equal_finite_differences() -> None:
    views = [tower_feature(f"h__{name}", TowerSide.SEQUENCE, name) for name in ("item", "brand")]
    features = [tower_feature("item"), *views]
    spec = tower_spec(features, Model(poolings=[{"kind": "attention"}]))
    tables = EmbeddingTables(spec, torch.Generator().manual_seed(0)).double()
    tables.table(2)[1:] *= 20.0
    pooling = _pooling(4, 2).double()
    # Row 0 reads item 2 twice, and a brand that is missing; row 2 reads it again.
    offsets = np.array([0, 3, 3, 5])
    ones = np.ones(5, np.float32)
    bags = [Bags(np.array(values), offsets, ones) for values in ([2, 3, 2, 4, 2], [1, 0, 4, 4, 3])]
    (view,) = spec.attention_views
    factors = torch.from_numpy(np.random.default_rng(1).normal(size=(3, 2, 4)))

    def loss(tape: list[Lookup] | None = None) -> torch.Tensor:
        return (pooling(tables.lookup_each(view.features, [bag.values for bag in bags], tape), offsets) * factors).sum()

    tape: list[Lookup] = []
    loss(tape).backward()
    rows, gradients = row_gradients(tape)
    assert 0 not in rows.tolist()
    found = torch.zeros_like(tables.table(2)).index_copy(0, rows, gradients)
    table, step = tables.table(2), 1e-6
    assert len(rows) == 6
    for row in range(1, len(table)):
        for column in range(2):
            kept = table[row, column].item()
            sides = []
            for moved in (kept + step, kept - step):
                table[row, column] = moved
                sides.append(loss().item())
            table[row, column] = kept
            assert found[row, column].item() == pytest.approx((sides[0] - sides[1]) / (2 * step), abs=1e-6)
    assert float(found.abs().max()) > 0.01
