"""The choice of a prior: a helpful one is found, a useless one is not used, few candidates are as good as all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dssm_assets.core.arrays.ragged import ItemSets
from dssm_assets.core.models.prior import Prior
from dssm_assets.core.training.closed_form import prior_choice
from dssm_assets.core.training.closed_form.prior_choice import COARSE_STRENGTHS, PriorSearch


def _unit(vectors: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def _world(num_users: int, num_items: int, seed: int = 0) -> tuple[Any, ...]:
    rng = np.random.default_rng(seed)
    users, items = (_unit(rng.normal(size=(count, 8))) for count in (num_users, num_items))
    return rng, users, items


def _truth(per_user: int, items: Any) -> ItemSets:
    return ItemSets(np.arange(0, len(items) + 1, per_user), items)


def _hits(users: Any, items: Any, truth: ItemSets, values: Any, scale: float, k: int) -> int:
    scores = users @ items.T * scale + values
    kth = np.sort(scores, axis=1)[:, -k]
    return int((scores[truth.users, truth.items] >= kth[truth.users]).sum())


def _choose(sold: Any, ages: Any, scale: float = 10.0) -> tuple[Prior, int, int]:
    """Returns the prior for what was sold, if what users take next is items 0 to 9 and vectors say nothing, and the hits with and without it."""
    _, users, items = _world(40, 300)
    truth, search = _truth(5, np.tile(np.arange(10), 20)), PriorSearch.from_samples(sold, ages, 300)
    prior = search.choose(users, items, truth, scale=scale, k=10)
    with_prior, without = (_hits(users, items, truth, values, scale, 10) for values in (search.item_values(prior) * scale, 0.0))
    return prior, with_prior, without


POPULAR = np.repeat(np.arange(10), 50), np.full(500, 10)
"""Ten items hold all positives before."""


def test_popular_truth_gets_a_popularity_prior() -> None:
    # The prior must lift just these ten: 200 items are to be found.
    prior, hits, hits_without = _choose(*POPULAR)
    assert prior.popularity > 0 or prior.recent > 0
    assert hits == 200 and hits_without < 20


def test_strengths_have_no_upper_end() -> None:
    # Vectors of scale 300 hide what sold unless the prior is as loud: each step that finds more is followed by another one.
    prior, hits, _ = _choose(*POPULAR, scale=300.0)
    assert hits == 200
    assert 300 * max(prior.popularity, prior.recent) > 5 * max(COARSE_STRENGTHS)


def test_perfect_vectors_get_no_prior() -> None:
    rng, users, items = _world(40, 300)
    best = np.argsort(-(users @ items.T), axis=1)[:, :3]
    search = PriorSearch.from_samples(rng.integers(0, 300, 3000), rng.integers(1, 60, 3000), 300)
    truth = _truth(3, best.reshape(-1))
    prior = search.choose(users, items, truth, scale=10.0, k=3)
    assert (prior.popularity, prior.recent) == (0.0, 0.0)


def test_recent_truth_gets_a_short_half_life() -> None:
    # Items 0-9 sold yesterday alone, items 10-19 ten times as much two months ago.
    prior, *_ = _choose(np.concatenate([np.arange(10), np.repeat(np.arange(10, 20), 10)]), np.repeat([1, 60], [10, 100]))
    assert prior.recent > 0
    assert prior.half_life_days < 30


def test_truth_of_the_last_hours_gets_a_half_life_of_hours() -> None:
    # Items 0-9 sold an hour ago, items 10-19 four times as often at noon.
    prior, hits, _ = _choose(np.repeat(np.arange(20), np.repeat([20, 80], 10)), np.repeat([1 / 24, 12 / 24], [200, 800]))
    # A half-life h orders them rightly if 2 ** (-1 / 24h) > 4 * 2 ** (-12 / 24h): below 5.5 hours.
    assert prior.recent > 0
    assert prior.half_life_days < 5.5 / 24
    assert hits > 180


def test_truth_that_grows_gets_growth() -> None:
    # Items 0-9 sold 5 times this week and never before, items 10-19 sold 5 times now and 50 times the week before.
    ages = np.concatenate([np.full(50, 3.0), np.tile(np.repeat([3.0, 10.0], [5, 50]), 10)])
    prior, hits, _ = _choose(np.repeat(np.arange(20), np.repeat([5, 55], 10)), ages)
    assert prior.growth > 0
    assert hits > 180


def test_prior_is_in_units_of_the_product_at_any_temperature() -> None:
    _, users, items = _world(40, 300)
    search, truth = PriorSearch.from_samples(*POPULAR, 300), _truth(5, np.tile(np.arange(10), 20))
    once, twice = (search.choose(users, items * size, truth, scale=10.0 / size, k=10) for size in (1, 2))
    assert (twice.popularity, twice.recent) == pytest.approx((2 * once.popularity, 2 * once.recent))


@pytest.mark.parametrize("interests", [1, 3])
def test_candidates_are_as_good_as_all_items(interests: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng, _, items = _world(1, 2000)
    users = _unit(rng.normal(size=(50, interests, 8)))
    popular = rng.zipf(1.3, 20_000) % 2000
    search = PriorSearch.from_samples(popular, rng.integers(1, 60, len(popular)), 2000)
    truth = _truth(6, popular[:300])
    few = search.score_candidates(users, items * np.float32(10), truth, 5)
    assert few.scores.shape[1] < 300
    monkeypatch.setattr(prior_choice, "LIST_FACTOR", 1000)
    whole = search.score_candidates(users, items * np.float32(10), truth, 5)
    assert whole.scores.shape[1] == 2000
    for popularity, recent in ((0.0, 0.0), (1.0, 0.0), (0.5, 0.5)):
        values = search.item_values(Prior(popularity=popularity, recent=recent, half_life_days=7))
        # An item that is fairly good by score and by count may be in neither list, so a few kth scores are too low.
        assert few.find_hits(values, 5).sum() == pytest.approx(
            whole.find_hits(values, 5).sum(), abs=0 if popularity == recent == 0 else 3
        )
    plain = (users @ items.T).max(1) * 10
    kth = np.sort(plain, axis=1)[:, -5]
    assert whole.find_hits(np.zeros(2000, np.float32), 5).sum() == int(
        (plain[truth.users, truth.items] >= kth[truth.users]).sum()
    )


def test_even_sample_of_many_users_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prior_choice, "MAX_SCORES", 3000)
    search = PriorSearch.from_samples(np.zeros(0, np.int64), np.zeros(0, np.int64), 300)
    assert search.choose_users(40, 200).tolist() == np.linspace(0, 39, 10).astype(int).tolist()


@pytest.mark.parametrize("num_items", [300, 2000])
def test_excluded_items_are_no_candidates(num_items: int) -> None:
    rng = np.random.default_rng(3)
    users, items = rng.standard_normal((6, 4)).astype(np.float32), rng.standard_normal((num_items, 4)).astype(np.float32)
    sold = np.concatenate([rng.integers(0, 40, 400), np.repeat([1, 2], 50)])  # items 1 and 2 are the most popular
    search = PriorSearch.from_samples(sold, rng.integers(1, 60, 500), num_items)
    excluded = _truth(2, np.tile([1, 2], 6))
    found = search.score_candidates(users, items, _truth(1, np.full(6, 5)), 2, excluded)
    assert np.isneginf(found.scores[np.isin(found.items, [1, 2])]).all()
    assert np.isin(found.items, [1, 2]).any()
    assert np.isfinite(found.scores).any()
