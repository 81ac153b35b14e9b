"""The mixture is exact, and draws follow it."""

from __future__ import annotations

import numpy as np
import pytest

from dssm_assets.core.errors import SchemaError
from dssm_assets.core.models.samplers.mixed import MixedSampler
from dssm_assets_tests.core.models.samplers.chi_square import LEAST_P, p_value

WEIGHTS = np.array([6.0, 2.0, 0.0, 2.0])


def test_probability_by_hand() -> None:
    # Uniform .25 each; by weight .6, .2, 0, .2; a quarter of the one and three of the other.
    assert MixedSampler(WEIGHTS, 0.25).probability == pytest.approx([0.5125, 0.2125, 0.0625, 0.2125])
    assert MixedSampler(WEIGHTS, 0.0).probability == pytest.approx([0.6, 0.2, 0.0, 0.2])
    assert MixedSampler(WEIGHTS, 1.0).probability == pytest.approx([0.25] * 4)


@pytest.mark.parametrize("frac", [0.0, 0.1, 0.5, 1.0])
def test_draws_follow_the_mixture_by_chi_square(frac: float) -> None:
    weights = 1.0 / np.arange(1, 101)
    distribution = frac / 100 + (1 - frac) * weights / weights.sum()
    drawn, probability = MixedSampler(weights, frac).draw(200_000, np.random.default_rng(4))
    assert p_value(drawn, distribution) > LEAST_P
    assert probability == pytest.approx(distribution[drawn])
    for other in {0.0, 0.05, 1.0} - {frac}:
        assert p_value(drawn, other / 100 + (1 - other) * weights / weights.sum()) < LEAST_P


def test_bad_weights_are_refused() -> None:
    with pytest.raises(SchemaError, match="table items, column weight"):
        MixedSampler(np.array([-1.0, 2.0]), 0.5)
