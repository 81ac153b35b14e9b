"""What both towers read and share, their interests, and the scale of the similarity."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from dssm_assets.core.arrays.bags import Bags, mean_bags
from dssm_assets.core.config.model import Model, Similarity
from dssm_assets.core.models.tower_input import SideReader, TowerInput
from dssm_assets.core.models.tower_spec import TowerSide, tower_spec
from dssm_assets.core.models.two_tower import SimilarityScale, TwoTower, nearest_interests
from dssm_assets_tests.core.models.features import ONE_OF_EACH_SIDE, tower_feature

FEATURES = [
    tower_feature("i", TowerSide.ITEM, "item", dim=4),
    tower_feature("h", TowerSide.SEQUENCE, "item", dim=4),
    tower_feature("age", TowerSide.USER, dim=4),
]


def _user(values: list[int], is_empty: float) -> TowerInput:
    bag: Bags = mean_bags(np.array(values, np.int64), np.array([0, len(values)]))
    return TowerInput(np.array([[1]]), (bag,), np.array([is_empty], np.float32))


def test_an_empty_history_has_a_learned_vector() -> None:
    towers = TwoTower(tower_spec(FEATURES, Model()), torch.Generator().manual_seed(0))
    empty, unknown = towers.user_vectors(_user([], 1.0)), towers.user_vectors(_user([], 0.0))
    assert not torch.allclose(empty, unknown)


def test_a_weighted_feature_reaches_the_output_as_a_weighted_mean() -> None:
    # One feature of width 2 and one linear layer that changes nothing: a vector is what the feature pools to.
    tags, user = tower_feature("tags", is_multi=True, is_weighted=True), tower_feature("u", TowerSide.USER)
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
    # (3 * (1, 0) + (0, 10)) / 4; the plain mean; ((1, 0) - 3 * (0, 10)) / 4 without the missing value; one value whatever its
    # weight; a weight of 0; no value.
    expected = [[0.75, 2.5], [0.5, 5.0], [0.25, -7.5], [100.0, 100.0], [0.0, 0.0], [0.0, 0.0]]
    assert vectors == [pytest.approx(row) for row in expected]


def _attention_towers(**model: Any) -> TwoTower:
    poolings = [{"kind": "attention"}, {"kind": "mean"}]
    spec = tower_spec(FEATURES, Model(output_dim=3, hidden_units=[4], poolings=poolings, **model))
    return TwoTower(spec, torch.Generator().manual_seed(0))


def _histories(rows: list[list[int]]) -> TowerInput:
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    values = np.array([value for row in rows for value in row], np.int64)
    each = Bags(values, offsets, np.ones(len(values), np.float32))
    is_empty = np.array([not row for row in rows], np.float32)
    return TowerInput(np.ones((len(rows), 1), np.int64), (mean_bags(values, offsets), each), is_empty)


def test_shared_columns_are_the_history_and_item_features_with_its_embedding() -> None:
    towers = _attention_towers(skip=True)
    # User: age 0..3, mean 4..7, attention 8..11, the flag. Item: i alone.
    assert towers.user_tower.shared_columns.tolist() == [*range(4, 12)]
    assert towers.item_tower.shared_columns.tolist() == [*range(4)]
    other = [FEATURES[0], tower_feature("h", TowerSide.SEQUENCE, "other", dim=4), FEATURES[2]]
    apart = TwoTower(tower_spec(other, Model(skip=True)), torch.Generator().manual_seed(0))
    assert apart.item_tower.skip is None
    assert apart.user_tower.skip is not None


def test_interests_differ_by_attention_alone() -> None:
    towers, inputs = _attention_towers(num_interests=2), _histories([[1, 2, 4], [], [3]])
    with torch.no_grad():
        towers.attention[0].score.weight.mul_(500.0)  # type: ignore[operator, union-attr]
        vectors = towers.user_vectors(inputs)
        assert vectors.shape == (3, 2, 3)
        assert vectors.norm(dim=2).flatten().tolist() == pytest.approx([1.0] * 6)
        # With one event or none the interests cannot differ.
        assert torch.allclose(vectors[1, 0], vectors[1, 1])
        assert torch.allclose(vectors[2, 0], vectors[2, 1])
        assert not torch.allclose(vectors[0, 0], vectors[0, 1], atol=1e-3)
        assert torch.allclose(nearest_interests(vectors, vectors[:, 1]), vectors[:, 1])


def test_every_look_up_of_the_history_is_on_the_tape() -> None:
    towers, tape = _attention_towers(num_interests=2, skip=True), []
    towers.user_vectors(_histories([[1, 2, 4], [3]]), tape).sum().backward()
    assert [lookup.rows.tolist() for lookup in tape[1:]] == [[1, 2, 4, 3]]
    assert all(lookup.pooled.grad is not None and bool(lookup.pooled.grad.any()) for lookup in tape)


def _scale(**model: Any) -> SimilarityScale:
    return SimilarityScale(tower_spec(ONE_OF_EACH_SIDE, Model(**model)))


def test_a_learned_temperature_starts_at_its_setting_and_learns_its_logarithm() -> None:
    scale = _scale(temperature=0.25, learn_temperature=True)
    found = scale.scale()
    assert isinstance(found, torch.Tensor)
    assert (found.shape, found.item()) == ((), pytest.approx(4.0))
    found.backward()
    # d exp(x) / dx is exp(x) itself.
    assert scale.log_scale is not None
    assert scale.log_scale.grad is not None
    assert scale.log_scale.grad.item() == pytest.approx(4.0)


def test_a_learned_scale_starts_as_identity_and_is_never_negative() -> None:
    scale = _scale(learn_scale=True)
    assert [part.item() for part in scale.affine() or ()] == [1.0, 0.0]
    with torch.no_grad():
        for parameter in scale.parameters():
            parameter.fill_(-2.0)
    assert [part.item() for part in scale.affine() or ()] == [2.0, -2.0]


INTERESTS = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]], [[3.0, 0.0], [3.0, 0.0]]])


def test_the_interest_with_the_largest_product_is_chosen() -> None:
    items = torch.tensor([[0.6, 0.8], [0.8, 0.6], [1.0, 0.0]])
    assert nearest_interests(INTERESTS, items).tolist() == [[0.0, 1.0], [1.0, 0.0], [3.0, 0.0]]
    # It alone gets a gradient.
    interests, items = INTERESTS.clone().requires_grad_(True), torch.tensor([[0.6, 0.8]] * 3).requires_grad_(True)
    nearest_interests(interests, items).sum().backward()
    assert interests.grad is not None
    assert interests.grad.sum(2).tolist() == [[0.0, 2.0], [0.0, 2.0], [2.0, 0.0]]
    assert items.grad is None
