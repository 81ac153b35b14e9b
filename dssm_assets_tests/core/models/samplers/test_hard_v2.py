"""Both halves in one: the law of v2, and hard negatives."""

from __future__ import annotations

import numpy as np
import pytest

from dssm_assets.core.models.samplers.hard import HardEdges
from dssm_assets.core.models.samplers.hard_v2 import HardV2Sampler
from dssm_assets_tests.core.models.samplers.chi_square import LEAST_P, p_value

WEIGHTS = np.array([4.0, 3.0, 2.0, 1.0])
EDGES = HardEdges(np.array([0, 0, 3]), np.array([1, 2, 3], np.int32), np.zeros(3, np.int32))


def test_shared_and_hard_negatives_follow_their_laws_by_chi_square() -> None:
    sampler = HardV2Sampler(WEIGHTS, EDGES)
    assert sampler.counted_probability(np.array([0])) == pytest.approx([0, 1 / 2, 1 / 3, 1 / 6])
    drawn, probability = sampler.draw(50_000, np.random.default_rng(1))
    assert p_value(drawn, WEIGHTS / 10) > LEAST_P
    assert probability == pytest.approx(WEIGHTS[drawn] / 10)
    users = np.array([1], np.int32)
    hard = np.concatenate([sampler.draw_hard(users, 1, np.random.default_rng([2, seed])).items for seed in range(5000)])
    assert p_value(hard, np.array([0, 1 / 3, 1 / 3, 1 / 3])) > LEAST_P
    assert len(sampler.draw_hard(np.array([0], np.int32), 5, np.random.default_rng(2)).items) == 0
