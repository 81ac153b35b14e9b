"""The user tower sees an empty history as something of its own, and shares the item table with the item tower."""

from __future__ import annotations

import numpy as np
import torch

from dssm_assets.core.config import Model
from dssm_assets.core.models.bags import Bags, mean_bags
from dssm_assets.core.models.tower_input import TowerInput
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
