"""What of the similarity is learned, and where it starts."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dssm_assets.core.model_config import Model
from dssm_assets.core.models.similarity import SimilarityScale
from dssm_assets.core.models.tower_feature import Side, TowerFeature
from dssm_assets.core.models.tower_spec import tower_spec

FEATURES = [
    TowerFeature(name=name, side=side, embedding_name=name, embedding_dim=2, num_embeddings=5)
    for name, side in (("u", Side.USER), ("i", Side.ITEM))
]


def _scale(**model: Any) -> SimilarityScale:
    return SimilarityScale(tower_spec(FEATURES, Model(**model)))


def test_nothing_is_learned_unless_asked_for() -> None:
    scale = _scale(temperature=0.25)
    assert (scale.scale(), scale.affine(), list(scale.parameters())) == (4.0, None, [])


def test_a_learned_temperature_starts_where_it_is_set_and_moves_as_its_logarithm() -> None:
    scale = _scale(temperature=0.25, learn_temperature=True)
    found = scale.scale()
    assert isinstance(found, torch.Tensor)
    assert (found.shape, found.item()) == ((), pytest.approx(4.0))
    found.backward()
    # d exp(x) / dx is exp(x) itself.
    assert scale.log_scale is not None
    assert scale.log_scale.grad is not None
    assert scale.log_scale.grad.item() == pytest.approx(4.0)


def test_a_learned_scale_starts_by_changing_nothing_and_is_never_negative() -> None:
    scale = _scale(learn_scale=True)
    assert [part.item() for part in scale.affine() or ()] == [1.0, 0.0]
    with torch.no_grad():
        for parameter in scale.parameters():
            parameter.fill_(-2.0)
    assert [part.item() for part in scale.affine() or ()] == [2.0, -2.0]
