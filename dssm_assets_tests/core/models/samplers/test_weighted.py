"""The alias table is the exact distribution, and the draws of every sampler follow theirs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dssm_assets.core.errors import SchemaError
from dssm_assets.core.models.losses.loss_terms import log_expected_counts, matching_pairs
from dssm_assets.core.models.samplers.weighted import (
    AllItemsSampler,
    UniformSampler,
    WeightedSampler,
    alias_table,
    mix_with_uniform,
)
from dssm_assets_tests.core.models.samplers.chi_square import LEAST_P, p_value

ENTRIES = st.one_of(st.just(0.0), st.floats(1e-6, 1e6)), st.sampled_from([0.0, 0.5, 0.75, 1.0, 2.0, 3.0])
"""Any weights, and weights full of ties, whose shares meet the edge of a slot exactly."""
WEIGHTS = st.one_of(*[st.lists(entry, min_size=1, max_size=60) for entry in ENTRIES]).filter(lambda w: sum(w) > 0)


@settings(max_examples=300, deadline=None)
@example(weights=[1.0, 0.0, 2.0])
@example(weights=[0.0, 0.0, 1.0, 1.0])
@example(weights=[0.0, 0.0, 0.5, 0.75, 0.75, 0.75, 0.75])
@given(weights=WEIGHTS)
def test_alias_table_is_the_exact_distribution(weights: list[float]) -> None:
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


def test_draws_follow_the_distribution_by_chi_square() -> None:
    weights = 1.0 / np.arange(1, 201) ** 1.1
    drawn, _ = WeightedSampler(weights).draw(400_000, np.random.default_rng(3))
    assert p_value(drawn, weights / weights.sum()) > 0.01
    # The test detects ignored weights, and one forgotten weight.
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


HEAVY_TAILED = 1.0 / np.arange(1, 41)
INTERACTED = np.array([0, 1, 2, 5, 30, -1])
"""One user's items, most of them with large weights; -1 is outside the corpus."""


def test_unmasked_draws_follow_the_conditional_distribution_by_chi_square() -> None:
    sampler, counted = WeightedSampler(HEAVY_TAILED), []
    distribution = HEAVY_TAILED.copy()
    distribution[INTERACTED[INTERACTED >= 0]] = 0.0
    distribution /= distribution.sum()
    for step in range(200):
        columns, _ = sampler.draw(500, np.random.default_rng([7, step]))
        masked = matching_pairs(np.zeros(len(INTERACTED), np.int64), INTERACTED, columns)
        counted.append(np.delete(columns, masked.columns))
    drawn = np.concatenate(counted)
    assert p_value(drawn, distribution) > LEAST_P
    # The faults that this must find: weights ignored, and a mask that is lost once in a while.
    uniform = np.where(distribution > 0, 1.0, 0.0)
    assert p_value(drawn, uniform / uniform.sum()) < LEAST_P
    assert p_value(np.append(drawn, 0), distribution) < LEAST_P


def test_uniform_draws_by_chi_square() -> None:
    distribution, sampler = np.full(50, 1 / 50), UniformSampler(50)
    drawn, probability = sampler.draw(100_000, np.random.default_rng(1))
    assert p_value(drawn, distribution) > LEAST_P
    assert probability.tolist() == [0.02] * 100_000
    # The test detects draws by weight.
    weighted, _ = WeightedSampler(1.0 + np.arange(50) / 50).draw(100_000, np.random.default_rng(1))
    assert p_value(weighted, distribution) < LEAST_P
    assert len(sampler.draw(0, np.random.default_rng(2))[0]) == 0


def test_a_mixture_is_half_uniform_and_half_by_weight() -> None:
    # Uniform .25 each; by weight .6, .2, 0, .2.
    assert mix_with_uniform(np.array([6.0, 2.0, 0.0, 2.0])).probability == pytest.approx([0.425, 0.225, 0.125, 0.225])
    weights = 1.0 / np.arange(1, 101)
    drawn, _ = mix_with_uniform(weights).draw(200_000, np.random.default_rng(4))
    assert p_value(drawn, 0.5 / 100 + 0.5 * weights / weights.sum()) > LEAST_P
    assert p_value(drawn, weights / weights.sum()) < LEAST_P


@pytest.mark.parametrize("count", [0, 2, 9])
def test_all_items_are_each_there_once(count: int) -> None:
    items, probability = AllItemsSampler(3).draw(count, np.random.default_rng(0))
    assert items.tolist() == [0, 1, 2]
    # Expected once each, so nothing is to be corrected.
    assert log_expected_counts(probability, len(items), 1.0) == pytest.approx([0.0] * 3, abs=1e-7)


@pytest.mark.parametrize("sampler", [UniformSampler, AllItemsSampler])
def test_an_empty_corpus_is_refused(sampler: type[UniformSampler]) -> None:
    with pytest.raises(SchemaError, match="table items: expected at least one item"):
        sampler(0)
