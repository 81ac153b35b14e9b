"""By weight over the whole corpus; what counts for a user is the law without what it took."""

from __future__ import annotations

import numpy as np
import pytest

from dssm_assets.core.models.losses.masks import matching_pairs
from dssm_assets.core.models.samplers.v2 import V2Sampler
from dssm_assets_tests.core.models.samplers.chi_square import LEAST_P, p_value

WEIGHTS = 1.0 / np.arange(1, 41)
TAKEN = np.array([0, 1, 2, 5, 30, -1])
"""A user's items, most of them heavy; -1 is outside the corpus."""


def test_the_law_of_what_counts_by_hand() -> None:
    sampler = V2Sampler(np.array([4.0, 3.0, 2.0, 1.0]))
    assert sampler.counted_probability(np.array([0, -1])) == pytest.approx([0, 1 / 2, 1 / 3, 1 / 6])
    assert sampler.counted_probability(np.arange(4)).tolist() == [0.0] * 4
    assert sampler.probability == pytest.approx([0.4, 0.3, 0.2, 0.1])


def test_what_counts_follows_the_law_by_chi_square() -> None:
    sampler = V2Sampler(WEIGHTS)
    law, counted = sampler.counted_probability(TAKEN), []
    for step in range(200):
        columns, _ = sampler.draw(500, np.random.default_rng([7, step]))
        masked = matching_pairs(np.zeros(len(TAKEN), np.int64), TAKEN, columns)
        counted.append(np.delete(columns, masked.columns))
    drawn = np.concatenate(counted)
    assert p_value(drawn, law) > LEAST_P
    # The faults that this must find: weights ignored, and an exclusion that is lost once in a while.
    uniform = np.where(law > 0, 1.0, 0.0)
    assert p_value(drawn, uniform / uniform.sum()) < LEAST_P
    assert p_value(np.append(drawn, 0), law) < LEAST_P


def test_items_that_nobody_took_are_drawn() -> None:
    drawn, probability = V2Sampler(WEIGHTS).draw(50_000, np.random.default_rng(1))
    assert set(drawn.tolist()) == set(range(40))
    assert p_value(drawn, WEIGHTS / WEIGHTS.sum()) > LEAST_P
    assert probability == pytest.approx((WEIGHTS / WEIGHTS.sum())[drawn])
