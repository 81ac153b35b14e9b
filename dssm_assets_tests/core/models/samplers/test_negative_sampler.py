"""The model section names the sampler, and each name acts."""

from __future__ import annotations

import numpy as np
import pytest

from dssm_assets.core.model_config import Model, Sampler
from dssm_assets.core.models.samplers.hard import HardEdges, HardSampler
from dssm_assets.core.models.samplers.hard_v2 import HardV2Sampler
from dssm_assets.core.models.samplers.mixed import MixedSampler
from dssm_assets.core.models.samplers.negative_sampler import negative_sampler
from dssm_assets.core.models.samplers.uniform import UniformSampler
from dssm_assets.core.models.samplers.v2 import V2Sampler
from dssm_assets.core.models.samplers.weighted import WeightedSampler

WEIGHTS = np.array([3.0, 1.0])
KINDS = {
    Sampler.UNIFORM: (UniformSampler, [0.5, 0.5]),
    Sampler.WEIGHTED: (WeightedSampler, [0.75, 0.25]),
    Sampler.V2: (V2Sampler, [0.75, 0.25]),
    Sampler.MIXED: (MixedSampler, [0.7, 0.3]),
    Sampler.HARD: (HardSampler, [0.75, 0.25]),
    Sampler.HARD_V2: (HardV2Sampler, [0.75, 0.25]),
}


@pytest.mark.parametrize("kind", Sampler)
def test_each_name(kind: Sampler) -> None:
    made = negative_sampler(Model(sampler=kind, uniform_frac=0.2), WEIGHTS)
    assert type(made) is KINDS[kind][0]
    assert made.probability == pytest.approx(KINDS[kind][1])
    drawn, probability = made.draw(7, np.random.default_rng(1))
    assert probability.tolist() == made.probability[drawn].tolist()


def test_hard_samplers_draw_from_the_edges() -> None:
    edges = HardEdges(np.array([0, 1]), np.array([1], np.int32), np.array([0], np.int32))
    for kind in (Sampler.HARD, Sampler.HARD_V2):
        made = negative_sampler(Model(sampler=kind), WEIGHTS, edges)
        assert isinstance(made, HardSampler)
        assert made.draw_hard(np.array([0], np.int32), 3, np.random.default_rng(1)).items.tolist() == [1]
