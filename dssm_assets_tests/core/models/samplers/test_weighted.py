"""The alias table is the exact distribution, and draws follow it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dssm_assets.core.errors import SchemaError
from dssm_assets.core.models.losses.loss_terms import matching_pairs
from dssm_assets.core.models.samplers.weighted import MixedSampler, UniformSampler, V2Sampler, WeightedSampler, alias_table
from dssm_assets_tests.core.models.samplers.chi_square import LEAST_P, p_value

ENTRIES = st.one_of(st.just(0.0), st.floats(1e-6, 1e6)), st.sampled_from([0.0, 0.5, 0.75, 1.0, 2.0, 3.0])
"""Any weights, and weights full of ties, whose shares meet the edge of a slot exactly."""
WEIGHTS = st.one_of(*[st.lists(entry, min_size=1, max_size=60) for entry in ENTRIES]).filter(lambda w: sum(w) > 0)


@settings(max_examples=300, deadline=None)
@example(weights=[1.0, 0.0, 2.0])
@example(weights=[0.0, 0.0, 1.0, 1.0])
@example(weights=[0.0, 0.0, 0.5, 0.75, 0.75, 0.75, 0.75])
@given(weights=WEIGHTS)
def test_alias_table_holds_exactly_the_law(weights: list[float]) -> None:
    probability = np.array(weights) / np.sum(weights)
    keep, alias = alias_table(probability)
    mass = (keep + np.bincount(alias, weights=1 - keep, minlength=len(keep))) / len(keep)
    assert mass == pytest.approx(probability, abs=1e-12)
    assert ((keep >= 0) & (keep <= 1)).all()


def test_equal_weights_whose_shares_all_round_below_one_are_uniform() -> None:
    weights = np.full(5, 104858.01905251521)
    probability = weights / weights.sum()
    assert (probability * 5 < 1).all()
    keep, _ = alias_table(probability)
    assert keep == pytest.approx(np.ones(5), abs=1e-12)
    drawn, _ = WeightedSampler(weights).draw(1000, np.random.default_rng(0))
    assert set(drawn.tolist()) == {0, 1, 2, 3, 4}


def test_alias_table_by_hand() -> None:
    # Shares 2, 0.5, 0.5: both light slots are filled by item 0, which keeps its own slot.
    keep, alias = alias_table(np.array([2 / 3, 1 / 6, 1 / 6]))
    assert keep == pytest.approx([1.0, 0.5, 0.5])
    assert alias.tolist()[1:] == [0, 0]


def test_draws_follow_the_law_by_chi_square() -> None:
    weights = 1.0 / np.arange(1, 201) ** 1.1
    drawn, _ = WeightedSampler(weights).draw(400_000, np.random.default_rng(3))
    assert p_value(drawn, weights / weights.sum()) > 0.01
    # Weights that are ignored, or of which one is forgotten, are told from it.
    assert p_value(drawn, np.full(200, 1 / 200)) < LEAST_P
    assert p_value(drawn, np.append(weights[:-1], 0.0) / weights[:-1].sum()) < LEAST_P


def test_draws_return_their_probability_and_repeat_with_the_seed() -> None:
    sampler = WeightedSampler(np.array([1.0, 3.0, 0.0]))
    items, probability = sampler.draw(50, np.random.default_rng(1))
    again, _ = sampler.draw(50, np.random.default_rng(1))
    other, _ = sampler.draw(50, np.random.default_rng(2))
    assert items.tolist() == again.tolist() != other.tolist()
    assert probability.tolist() == [[0.25, 0.75, 0.0][item] for item in items]
    assert 2 not in items


@pytest.mark.parametrize("weights", [[-1.0, 2.0], [np.nan, 1.0], [np.inf], [0.0, 0.0], []])
def test_bad_weights_are_refused(weights: list[float]) -> None:
    with pytest.raises(SchemaError, match="table items, column weight"):
        WeightedSampler(np.array(weights, np.float64))


def test_uniform_draws_follow_the_law_by_chi_square() -> None:
    distribution = np.full(50, 1 / 50)
    drawn, probability = UniformSampler(50).draw(100_000, np.random.default_rng(1))
    assert p_value(drawn, distribution) > LEAST_P
    assert probability.tolist() == [0.02] * 100_000
    # Draws by weight are told from it.
    weighted, _ = WeightedSampler(1.0 + np.arange(50) / 50).draw(100_000, np.random.default_rng(1))
    assert p_value(weighted, distribution) < LEAST_P


def test_more_draws_than_items_and_none() -> None:
    sampler = UniformSampler(3)
    drawn, _ = sampler.draw(40, np.random.default_rng(2))
    assert set(drawn.tolist()) == {0, 1, 2}
    assert sampler.probability.tolist() == pytest.approx([1 / 3] * 3)
    assert len(sampler.draw(0, np.random.default_rng(2))[0]) == 0


def test_the_seed_decides() -> None:
    draws = [UniformSampler(1000).draw(20, np.random.default_rng(seed))[0].tolist() for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]


def test_no_items_are_refused() -> None:
    with pytest.raises(SchemaError, match="table items: expected at least one item"):
        UniformSampler(0)


WEIGHTS_MIXED = np.array([6.0, 2.0, 0.0, 2.0])


def test_the_law_by_hand() -> None:
    # Uniform .25 each; by weight .6, .2, 0, .2; a quarter of the one and three of the other.
    assert MixedSampler(WEIGHTS_MIXED, 0.25).probability == pytest.approx([0.5125, 0.2125, 0.0625, 0.2125])
    assert MixedSampler(WEIGHTS_MIXED, 0.0).probability == pytest.approx([0.6, 0.2, 0.0, 0.2])
    assert MixedSampler(WEIGHTS_MIXED, 1.0).probability == pytest.approx([0.25] * 4)


@pytest.mark.parametrize("frac", [0.0, 0.1, 0.5, 1.0])
def test_mixed_draws_follow_the_law_by_chi_square(frac: float) -> None:
    weights = 1.0 / np.arange(1, 101)
    distribution = frac / 100 + (1 - frac) * weights / weights.sum()
    drawn, probability = MixedSampler(weights, frac).draw(200_000, np.random.default_rng(4))
    assert p_value(drawn, distribution) > LEAST_P
    assert probability == pytest.approx(distribution[drawn])
    for other in {0.0, 0.05, 1.0} - {frac}:
        assert p_value(drawn, other / 100 + (1 - other) * weights / weights.sum()) < LEAST_P


def test_mixed_bad_weights_are_refused() -> None:
    with pytest.raises(SchemaError, match="table items, column weight"):
        MixedSampler(np.array([-1.0, 2.0]), 0.5)


WEIGHTS_V2 = 1.0 / np.arange(1, 41)
TAKEN = np.array([0, 1, 2, 5, 30, -1])
"""A user's items, most of them heavy; -1 is outside the corpus."""


def test_the_law_of_what_counts_by_hand() -> None:
    sampler = V2Sampler(np.array([4.0, 3.0, 2.0, 1.0]))
    assert sampler.counted_probability(np.array([0, -1])) == pytest.approx([0, 1 / 2, 1 / 3, 1 / 6])
    assert sampler.counted_probability(np.arange(4)).tolist() == [0.0] * 4
    assert sampler.probability == pytest.approx([0.4, 0.3, 0.2, 0.1])


def test_what_counts_follows_the_law_by_chi_square() -> None:
    sampler = V2Sampler(WEIGHTS_V2)
    distribution, counted = sampler.counted_probability(TAKEN), []
    for step in range(200):
        columns, _ = sampler.draw(500, np.random.default_rng([7, step]))
        masked = matching_pairs(np.zeros(len(TAKEN), np.int64), TAKEN, columns)
        counted.append(np.delete(columns, masked.columns))
    drawn = np.concatenate(counted)
    assert p_value(drawn, distribution) > LEAST_P
    # The faults that this must find: weights ignored, and an exclusion that is lost once in a while.
    uniform = np.where(distribution > 0, 1.0, 0.0)
    assert p_value(drawn, uniform / uniform.sum()) < LEAST_P
    assert p_value(np.append(drawn, 0), distribution) < LEAST_P


def test_items_that_nobody_took_are_drawn() -> None:
    drawn, probability = V2Sampler(WEIGHTS_V2).draw(50_000, np.random.default_rng(1))
    assert set(drawn.tolist()) == set(range(40))
    assert p_value(drawn, WEIGHTS_V2 / WEIGHTS_V2.sum()) > LEAST_P
    assert probability == pytest.approx((WEIGHTS_V2 / WEIGHTS_V2.sum())[drawn])
