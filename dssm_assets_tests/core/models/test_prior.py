"""The prior by hand, and the inner product that carries it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dssm_assets.core.models.prior import Prior, ages_in_days, append_one, append_prior, decayed_counts, weekly_growth


def test_decayed_counts_halve_per_half_life() -> None:
    # Item 0: a day old, half of 2 days away: 2^-.5; item 2: 2 and 4 days old: 1/2 + 1/4; item 1 has no interaction.
    found = decayed_counts(np.array([2, 0, 2]), np.array([2, 1, 4]), 2.0, 3)
    assert found.tolist() == pytest.approx([2**-0.5, 0.0, 0.75])


def test_ages_are_fractions_of_days_before_the_newest_event() -> None:
    hour = 3_600_000
    assert ages_in_days(np.array([18, -12, 24]) * hour).tolist() == [0.25, 1.5, 0.0]
    assert ages_in_days(np.zeros(0, np.int64)).tolist() == []


def test_prior_weighs_both_logarithms_and_has_mean_zero() -> None:
    prior = Prior(popularity=2.0, recent=0.5, half_life_days=7.0)
    values = prior.values_for(np.array([0.0, 3.0]), np.array([0.0, 0.7]))
    # 2 ln 1 + .5 ln .3 and 2 ln 4 + .5 ln 1; half their difference on either side of 0.
    half = (2 * math.log(4) - 0.5 * math.log(0.3)) / 2
    assert values.tolist() == pytest.approx([-half, half], rel=1e-6)
    assert values.dtype == np.float32
    assert prior.values_for(np.zeros(0), np.zeros(0)).tolist() == []
    grown = weekly_growth(np.array([0, 0, 0, 0, 1]), np.array([0.0, 3, 6.9, 7, 13.9]), 2)
    assert grown.tolist() == pytest.approx([math.log(4 / 2), math.log(1 / 2)])
    more = prior.model_copy(update={"growth": 3.0}).values_for(np.array([0.0, 3.0]), np.array([0.0, 0.7]), grown)
    assert (more - values).tolist() == pytest.approx([3 * math.log(2), -3 * math.log(2)], rel=1e-5)
    assert Prior.model_validate_json(prior.model_dump_json()) == prior


def test_inner_product_of_extended_vectors_adds_the_prior() -> None:
    users, items = np.array([[1.0, 2.0]], np.float32), np.array([[3.0, 4.0], [5.0, 6.0]], np.float32)
    scores = append_one(users) @ append_prior(items, np.array([0.5, -7.0], np.float32)).T
    assert scores.tolist() == [[11.5, 10.0]]
    assert append_one(np.zeros((2, 3, 4), np.float32)).shape == (2, 3, 5)
    assert append_one(users).dtype == np.float32
