"""The model section names the sampler, and each name acts."""

from __future__ import annotations

import numpy as np
import pytest

from dssm_assets.core.config.model import Model, Sampler
from dssm_assets.core.models.samplers.hard import HardEdges, HardSampler
from dssm_assets.core.models.samplers.sampler import HardV2Sampler, negative_sampler
from dssm_assets.core.models.samplers.weighted import MixedSampler, UniformSampler, V2Sampler, WeightedSampler
from dssm_assets_tests.core.models.samplers.chi_square import LEAST_P, p_value

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


WEIGHTS_HARD_V2 = np.array([4.0, 3.0, 2.0, 1.0])
EDGES = HardEdges(np.array([0, 0, 3]), np.array([1, 2, 3], np.int32), np.zeros(3, np.int32))


def test_shared_and_hard_negatives_follow_their_laws_by_chi_square() -> None:
    sampler = HardV2Sampler(WEIGHTS_HARD_V2, EDGES)
    assert sampler.counted_probability(np.array([0])) == pytest.approx([0, 1 / 2, 1 / 3, 1 / 6])
    drawn, probability = sampler.draw(50_000, np.random.default_rng(1))
    assert p_value(drawn, WEIGHTS_HARD_V2 / 10) > LEAST_P
    assert probability == pytest.approx(WEIGHTS_HARD_V2[drawn] / 10)
    users = np.array([1], np.int32)
    hard = np.concatenate([sampler.draw_hard(users, 1, np.random.default_rng([2, seed])).items for seed in range(5000)])
    assert p_value(hard, np.array([0, 1 / 3, 1 / 3, 1 / 3])) > LEAST_P
    assert len(sampler.draw_hard(np.array([0], np.int32), 5, np.random.default_rng(2)).items) == 0
