"""Every sampler draws from the distribution that it discloses; hard negatives are divided evenly over rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dssm_assets.core.config.model import Model, Sampler
from dssm_assets.core.errors import SchemaError
from dssm_assets.core.models.samplers import (
    SAMPLERS,
    AllItemsSampler,
    HardEdges,
    HardSampler,
    UniformSampler,
    WeightedSampler,
    alias_table,
    divide_evenly,
)
from dssm_assets.core.training.batch_negatives import log_expected_counts, matching_pairs
from dssm_assets.testing import LEAST_P, SamplerContract, p_value

TWO_WEIGHTS = np.array([3.0, 1.0])
EXPECTED = {
    Sampler.UNIFORM: (UniformSampler, [0.5, 0.5]),
    Sampler.ALL: (AllItemsSampler, [0.5, 0.5]),
    Sampler.WEIGHTED: (WeightedSampler, [0.75, 0.25]),
    Sampler.V2: (WeightedSampler, [0.75, 0.25]),
    Sampler.MIXED: (WeightedSampler, [0.625, 0.375]),
    Sampler.HARD: (HardSampler, [0.75, 0.25]),
    Sampler.HARD_V2: (HardSampler, [0.75, 0.25]),
}


class TestSamplers(SamplerContract):
    names = tuple(SAMPLERS)


@pytest.mark.parametrize("name", Sampler)
def test_each_name_has_its_distribution(name: Sampler) -> None:
    sampler = SAMPLERS[name](Model(sampler=name), TWO_WEIGHTS, HardEdges.empty())
    kind, distribution = EXPECTED[name]
    assert type(sampler) is kind
    assert sampler.probability == pytest.approx(distribution)


@pytest.mark.parametrize("name", Sampler)
def test_only_the_v2_samplers_mask_what_the_user_interacted_with(name: Sampler) -> None:
    assert Model(sampler=name).masks_user_positives == (name in (Sampler.V2, Sampler.HARD_V2))


ENTRIES = st.one_of(st.just(0.0), st.floats(1e-6, 1e6)), st.sampled_from([0.0, 0.5, 0.75, 1.0, 2.0, 3.0])
"""Any weights, and weights full of ties, whose shares meet the edge of a slot exactly."""
WEIGHTS = st.one_of(*[st.lists(entry, min_size=1, max_size=60) for entry in ENTRIES]).filter(lambda w: sum(w) > 0)


@settings(max_examples=100, deadline=None)
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


@pytest.mark.parametrize("count", [0, 2, 9])
def test_all_items_are_each_there_once(count: int) -> None:
    items, probability = AllItemsSampler(3).draw(count, np.random.default_rng(0))
    assert items.tolist() == [0, 1, 2]
    # Expected once each, so nothing is to be corrected.
    assert log_expected_counts(probability, len(items), 1.0) == pytest.approx([0.0] * 3, abs=1e-7)


def edges(degrees: list[int]) -> HardEdges:
    """Returns users with this many edges each; user u's are the items 100 u, 100 u + 1, ... shown on days 0, 1, ..."""
    items = [100 * user + place for user, degree in enumerate(degrees) for place in range(degree)]
    days = [place for degree in degrees for place in range(degree)]
    return HardEdges(np.concatenate([[0], np.cumsum(degrees)]), np.array(items, np.int32), np.array(days, np.int32))


@settings(deadline=None)
@given(capacity=st.lists(st.integers(0, 30), min_size=1, max_size=12), count=st.integers(0, 100), seed=st.integers(0, 9))
def test_quotas_are_even_within_capacities(capacity: list[int], count: int, seed: int) -> None:
    quota = divide_evenly(np.array(capacity), count, np.random.default_rng(seed))
    assert quota.sum() == min(count, sum(capacity))
    assert (quota <= capacity).all()
    # A row that has two fewer than another is at its capacity.
    assert all(q == c for q, c in zip(quota, capacity, strict=True) if q < quota.max() - 1)


@settings(deadline=None)
@given(
    degrees=st.lists(st.integers(0, 9), min_size=1, max_size=5),
    rows=st.lists(st.integers(-1, 7), min_size=0, max_size=8),
    count=st.integers(0, 30),
    seed=st.integers(0, 99),
)
def test_a_row_gets_distinct_edges_of_its_own_user(degrees: list[int], rows: list[int], count: int, seed: int) -> None:
    """Row numbers of unknown users, and of users behind the last that has edges, have none."""
    users = np.array(rows, np.int32)
    draw = edges(degrees).draw(users, count, np.random.default_rng(seed))
    degree_of = [degrees[user] if 0 <= user < len(degrees) else 0 for user in rows]
    assert len(draw.rows) == len(draw.items) == len(draw.days) == len(draw.probability) == min(count, sum(degree_of))
    assert (np.diff(draw.rows) >= 0).all()
    pairs = list(zip(draw.rows.tolist(), draw.items.tolist(), strict=True))
    assert len(set(pairs)) == len(pairs)
    for (row, item), day, probability in zip(pairs, draw.days.tolist(), draw.probability.tolist(), strict=True):
        assert (item // 100, item % 100) == (rows[row], day)
        assert day < degree_of[row]
        assert probability == pytest.approx(draw.rows.tolist().count(row) / degree_of[row])


@pytest.mark.parametrize(("degree", "count"), [(20, 1), (20, 3), (7, 5), (4, 4)])
def test_every_edge_is_drawn_with_its_probability_by_chi_square(degree: int, count: int) -> None:
    made, users = edges([3, degree]), np.array([1], np.int32)
    draws = [made.draw(users, count, np.random.default_rng([5, seed])) for seed in range(4_000)]
    assert {draw.probability[0] for draw in draws} == {count / degree}
    # One of each draw, chosen evenly, is even if every edge is as likely to be among them.
    chosen = np.random.default_rng(9).integers(count, size=len(draws))
    one = np.array([draw.days[at] for draw, at in zip(draws, chosen, strict=True)])
    assert p_value(one, np.full(degree, 1 / degree)) > LEAST_P
    assert np.bincount(np.concatenate([draw.days for draw in draws]), minlength=degree) / 4_000 == pytest.approx(
        np.full(degree, count / degree), abs=0.04
    )
    if count < degree:
        # The test detects a draw of always the first edges.
        assert p_value(chosen, np.full(degree, 1 / degree)) < LEAST_P


def test_remainders_go_to_equal_rows_uniformly_by_chi_square() -> None:
    made, users = edges([2] * 10), np.arange(10, dtype=np.int32)
    rows = np.concatenate([made.draw(users, 3, np.random.default_rng([6, seed])).rows for seed in range(4000)])
    assert p_value(rows, np.full(10, 0.1)) > LEAST_P
    assert len(rows) == 12_000


def test_batches_without_edges_have_no_hard_negatives() -> None:
    for made, users in (
        (HardEdges.empty(), np.array([0, 3, -1], np.int32)),
        (edges([0, 0]), np.array([0, 1], np.int32)),
        (edges([4]), np.array([-1], np.int32)),
        (edges([4]), np.zeros(0, np.int32)),
    ):
        draw = made.draw(users, 8, np.random.default_rng(1))
        assert len(draw.rows) == len(draw.items) == 0


def test_draws_repeat_with_the_seed_and_shared_negatives_are_by_weight() -> None:
    weights = np.arange(1.0, 31.0)
    sampler, users = HardSampler(weights, edges([30, 30])), np.array([0, 1], np.int32)
    draws = [sampler.edges.draw(users, 6, np.random.default_rng(seed)).items.tolist() for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]
    drawn, _ = sampler.draw(60_000, np.random.default_rng(3))
    assert p_value(drawn, weights / weights.sum()) > LEAST_P
    assert p_value(drawn, np.full(30, 1 / 30)) < LEAST_P
