"""Hard negatives: quotas of rows, exact probabilities, no bias by order, and batches without any."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dssm_assets.core.models.samplers.hard import HardEdges, HardSampler, divide_evenly
from dssm_assets_tests.core.models.samplers.chi_square import LEAST_P, p_value


def edges(degrees: list[int]) -> HardEdges:
    """Returns users with this many edges each; user u's are the items 100 u, 100 u + 1, ... shown on days 0, 1, ..."""
    items = [100 * user + place for user, degree in enumerate(degrees) for place in range(degree)]
    days = [place for degree in degrees for place in range(degree)]
    return HardEdges(np.concatenate([[0], np.cumsum(degrees)]), np.array(items, np.int32), np.array(days, np.int32))


def test_quotas_by_hand() -> None:
    quota = divide_evenly(np.array([0, 1, 5, 9]), 8, np.random.default_rng(0))
    assert (quota[:2].tolist(), sorted(quota[2:].tolist())) == ([0, 1], [3, 4])
    assert divide_evenly(np.array([0, 1, 5]), 8, np.random.default_rng(0)).tolist() == [0, 1, 5]
    assert divide_evenly(np.array([4, 4]), 0, np.random.default_rng(0)).tolist() == [0, 0]
    remainders = {tuple(divide_evenly(np.array([3, 3, 3]), 4, np.random.default_rng(seed)).tolist()) for seed in range(40)}
    assert remainders == {(2, 1, 1), (1, 2, 1), (1, 1, 2)}


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
        draw = HardSampler(np.ones(500), made).draw_hard(users, 8, np.random.default_rng(1))
        assert len(draw.rows) == len(draw.items) == 0


def test_draws_repeat_with_the_seed_and_shared_negatives_are_by_weight() -> None:
    weights = np.arange(1.0, 31.0)
    sampler, users = HardSampler(weights, edges([30, 30])), np.array([0, 1], np.int32)
    draws = [sampler.draw_hard(users, 6, np.random.default_rng(seed)).items.tolist() for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]
    drawn, _ = sampler.draw(60_000, np.random.default_rng(3))
    assert p_value(drawn, weights / weights.sum()) > LEAST_P
    assert p_value(drawn, np.full(30, 1 / 30)) < LEAST_P


def test_shared_and_hard_negatives_of_one_sampler_each_follow_their_distribution() -> None:
    weights, edges_of_user_1 = np.array([4.0, 3.0, 2.0, 1.0]), np.array([1, 2, 3], np.int32)
    sampler = HardSampler(weights, HardEdges(np.array([0, 0, 3]), edges_of_user_1, np.zeros(3, np.int32)))
    drawn, probability = sampler.draw(50_000, np.random.default_rng(1))
    assert p_value(drawn, weights / 10) > LEAST_P
    assert probability == pytest.approx(weights[drawn] / 10)
    users = np.array([1], np.int32)
    hard = np.concatenate([sampler.draw_hard(users, 1, np.random.default_rng([2, seed])).items for seed in range(5000)])
    assert p_value(hard, np.array([0, 1 / 3, 1 / 3, 1 / 3])) > LEAST_P
    assert len(sampler.draw_hard(np.array([0], np.int32), 5, np.random.default_rng(2)).items) == 0
