"""Draws are uniform over the corpus."""

from __future__ import annotations

import numpy as np
import pytest

from dssm_assets.core.errors import SchemaError
from dssm_assets.core.models.samplers.uniform import UniformSampler
from dssm_assets.core.models.samplers.weighted import WeightedSampler
from dssm_assets_tests.core.models.samplers.chi_square import LEAST_P, p_value


def test_draws_follow_the_uniform_distribution_by_chi_square() -> None:
    distribution = np.full(50, 1 / 50)
    drawn, probability = UniformSampler(50).draw(100_000, np.random.default_rng(1))
    assert p_value(drawn, distribution) > LEAST_P
    assert probability.tolist() == [0.02] * 100_000
    # The test detects draws by weight.
    weighted, _ = WeightedSampler(1.0 + np.arange(50) / 50).draw(100_000, np.random.default_rng(1))
    assert p_value(weighted, distribution) < LEAST_P


def test_more_draws_than_items_and_no_draws() -> None:
    sampler = UniformSampler(3)
    drawn, _ = sampler.draw(40, np.random.default_rng(2))
    assert set(drawn.tolist()) == {0, 1, 2}
    assert sampler.probability.tolist() == pytest.approx([1 / 3] * 3)
    assert len(sampler.draw(0, np.random.default_rng(2))[0]) == 0


def test_draws_repeat_with_the_seed() -> None:
    draws = [UniformSampler(1000).draw(20, np.random.default_rng(seed))[0].tolist() for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]


def test_an_empty_corpus_is_refused() -> None:
    with pytest.raises(SchemaError, match="table items: expected at least one item"):
        UniformSampler(0)
