"""The user tower sees an empty history as something of its own, and shares the item table with the item tower."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch

from dssm_assets.core.model_config import Model, Similarity
from dssm_assets.core.models.bags import Bags, mean_bags
from dssm_assets.core.models.tower_input import SideReader, TowerInput
from dssm_assets.core.models.tower_spec import Side, TowerFeature, tower_spec
from dssm_assets.core.models.two_tower import TwoTower


def _feature(name: str, side: Side, table: str) -> TowerFeature:
    return TowerFeature(name=name, side=side, embedding_name=table, embedding_dim=4, num_embeddings=5)


FEATURES = [_feature("i", Side.ITEM, "item"), _feature("h", Side.SEQUENCE, "item"), _feature("age", Side.USER, "age")]


def _user(values: list[int], is_empty: float) -> TowerInput:
    bag: Bags = mean_bags(np.array(values, np.int64), np.array([0, len(values)]))
    return TowerInput(np.array([[1]]), (bag,), np.array([is_empty], np.float32))


def test_empty_history_has_a_learned_vector() -> None:
    towers = TwoTower(tower_spec(FEATURES, Model()), torch.Generator().manual_seed(0))
    empty, unknown = towers.user_vectors(_user([], 1.0)), towers.user_vectors(_user([], 0.0))
    assert not torch.allclose(empty, unknown)


def test_history_and_item_tower_read_the_same_rows() -> None:
    towers = TwoTower(tower_spec(FEATURES, Model()), torch.Generator().manual_seed(0))
    before = towers.user_vectors(_user([3], 0.0)), towers.item_vectors(TowerInput(np.array([[3]])))
    towers.tables.table(4)[towers.tables.bases["item"] + 3] += 1.0
    assert not torch.allclose(before[0], towers.user_vectors(_user([3], 0.0)))
    assert not torch.allclose(before[1], towers.item_vectors(TowerInput(np.array([[3]]))))


def test_a_weighted_feature_reaches_the_output_as_a_weighted_mean() -> None:
    # One feature of width 2 and one linear layer that changes nothing: a vector is what the feature pools to.
    size = {"embedding_dim": 2, "num_embeddings": 4}
    tags = TowerFeature(name="tags", side=Side.ITEM, embedding_name="tags", is_multi=True, is_weighted=True, **size)
    user = TowerFeature(name="u", side=Side.USER, embedding_name="u", **size)
    model = Model(output_dim=2, hidden_units=[], similarity=Similarity.INNER_PRODUCT)
    towers = TwoTower(tower_spec([user, tags], model), torch.Generator().manual_seed(0))
    base = towers.tables.bases["tags"]
    towers.tables.table(2)[base + 1 : base + 4] = torch.tensor([[1.0, 0.0], [0.0, 10.0], [100.0, 100.0]])
    linear = towers.item_tower.linears[-1]
    with torch.no_grad():
        linear.weight.copy_(torch.eye(2))
        linear.bias.zero_()
    table = pa.table(
        {
            "tags": pa.array([[1, 2], [1, 2], [1, 2, 0], [3], [3], []], pa.list_(pa.int32())),
            "tags__weights": pa.array([[3, 1], [1, 1], [1, -3, 9], [5], [0], []], pa.list_(pa.float32())),
        }
    )
    vectors = towers.item_vectors(SideReader(table, "items", [tags]).read(np.arange(6))).tolist()
    # (3 * (1, 0) + (0, 10)) / 4; the plain mean; ((1, 0) - 3 * (0, 10)) / 4 without the missing value; one value is itself
    # whatever its weight, unless that is 0; nothing is zero.
    expected = [[0.75, 2.5], [0.5, 5.0], [0.25, -7.5], [100.0, 100.0], [0.0, 0.0], [0.0, 0.0]]
    assert vectors == [pytest.approx(row) for row in expected]
