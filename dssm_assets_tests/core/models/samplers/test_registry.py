"""Every name in `model.sampler` has a sampler, and each draws from the distribution it discloses."""

from __future__ import annotations

import numpy as np
import pytest

from dssm_assets.core.config.model import Model, Sampler
from dssm_assets.core.models.samplers.hard import HardEdges, HardSampler
from dssm_assets.core.models.samplers.mixed import MixedSampler
from dssm_assets.core.models.samplers.registry import SAMPLERS
from dssm_assets.core.models.samplers.uniform import UniformSampler
from dssm_assets.core.models.samplers.weighted import WeightedSampler

WEIGHTS = np.array([3.0, 1.0])
EDGES = HardEdges(np.array([0, 1]), np.array([1], np.int32), np.array([0], np.int32))
"""One user, who was shown item 1."""
EXPECTED = {
    Sampler.UNIFORM: (UniformSampler, [0.5, 0.5]),
    Sampler.WEIGHTED: (WeightedSampler, [0.75, 0.25]),
    Sampler.V2: (WeightedSampler, [0.75, 0.25]),
    Sampler.MIXED: (MixedSampler, [0.7, 0.3]),
    Sampler.HARD: (HardSampler, [0.75, 0.25]),
    Sampler.HARD_V2: (HardSampler, [0.75, 0.25]),
}


@pytest.mark.parametrize("name", Sampler)
def test_each_name_has_its_distribution(name: Sampler) -> None:
    sampler = SAMPLERS[name](Model(sampler=name, uniform_frac=0.2), WEIGHTS, HardEdges.empty())
    kind, distribution = EXPECTED[name]
    assert type(sampler) is kind
    assert sampler.probability == pytest.approx(distribution)
    drawn, probability = sampler.draw(7, np.random.default_rng(1))
    assert probability.tolist() == sampler.probability[drawn].tolist()


@pytest.mark.parametrize("name", [Sampler.HARD, Sampler.HARD_V2])
def test_hard_samplers_draw_from_the_edges(name: Sampler) -> None:
    sampler = SAMPLERS[name](Model(sampler=name), WEIGHTS, EDGES)
    assert isinstance(sampler, HardSampler)
    assert sampler.draw_hard(np.array([0], np.int32), 3, np.random.default_rng(1)).items.tolist() == [1]


@pytest.mark.parametrize("name", Sampler)
def test_only_the_v2_samplers_mask_what_the_user_interacted_with(name: Sampler) -> None:
    assert Model(sampler=name).masks_user_positives == (name in (Sampler.V2, Sampler.HARD_V2))
