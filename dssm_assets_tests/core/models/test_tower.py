"""Layers, lengths and seeded dropout of a tower."""

from __future__ import annotations

import pytest
import torch

from dssm_assets.core.model_config import Model, Similarity
from dssm_assets.core.models.tower import Tower
from dssm_assets.core.models.tower_spec import Side, TowerFeature, tower_spec

FEATURES = [
    TowerFeature(name=name, side=side, embedding_name=name, embedding_dim=2, num_embeddings=5)
    for name, side in (("u", Side.USER), ("i", Side.ITEM))
]


def _tower(model: Model, seed: int = 0) -> Tower:
    return Tower(6, tower_spec(FEATURES, model), torch.Generator().manual_seed(seed))


def test_shapes_follow_hidden_units_and_output_dim() -> None:
    shapes = [tuple(p.shape) for p in _tower(Model(hidden_units=[5, 4], output_dim=3)).linears.parameters()]
    assert shapes == [(5, 6), (5,), (4, 5), (4,), (3, 4), (3,)]
    assert [tuple(p.shape) for p in _tower(Model(hidden_units=[], output_dim=3)).parameters()] == [(3, 6), (3,)]


def test_only_cosine_vectors_have_length_one() -> None:
    inputs = torch.arange(12.0).view(2, 6)
    lengths = _tower(Model(similarity=Similarity.COSINE))(inputs, None).norm(dim=1)
    assert lengths.tolist() == pytest.approx([1.0, 1.0])
    assert not torch.allclose(_tower(Model(similarity=Similarity.INNER_PRODUCT))(inputs, None).norm(dim=1), torch.ones(2))


def test_dropout_follows_its_generator_and_is_off_without_one() -> None:
    tower, inputs = _tower(Model(dropout=0.5)), torch.arange(12.0).view(2, 6)
    drawn = [tower(inputs, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert torch.equal(tower(inputs, None), _tower(Model(dropout=0.0))(inputs, torch.Generator().manual_seed(1)))


def test_dropout_keeps_the_mean() -> None:
    tower = _tower(Model(dropout=0.5, similarity=Similarity.INNER_PRODUCT, hidden_units=[16], output_dim=4))
    inputs, draws = torch.arange(6.0).expand(20_000, 6), torch.Generator().manual_seed(1)
    assert tower(inputs, draws).mean(0).tolist() == pytest.approx(tower(inputs[:1], None)[0].tolist(), abs=0.03)


def test_weights_come_from_the_given_generator_alone() -> None:
    before = torch.get_rng_state()
    first, again, other = _tower(Model(), 0), _tower(Model(), 0), _tower(Model(), 1)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.linears[0].weight, again.linears[0].weight)  # type: ignore[arg-type]
    assert not torch.equal(first.linears[0].weight, other.linears[0].weight)  # type: ignore[arg-type]
