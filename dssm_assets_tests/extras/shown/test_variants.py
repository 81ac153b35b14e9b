"""Groups of people: GrowthBook's rule by hand, shares that hold, and as few moves as possible when shares change."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from scipy.stats import chisquare

from dssm_assets.extras.shown.variants import bucket_ranges, choose_variation, fnv1a, hash_person, ranges_of_shares

IDS = [f"user_{number}" for number in range(100_000)]
GROUPS = """
import json, sys
from dssm_assets.extras.shown.variants import choose_variation, hash_person, ranges_of_shares
ranges = ranges_of_shares([.5, .5])
print(json.dumps([choose_variation(hash_person("tiny:variants", str(one)), ranges) for one in range(1000)]))
"""


def assign(shares: list[float], seed: str = "tiny:variants") -> list[int]:
    ranges = ranges_of_shares(shares)
    return [choose_variation(hash_person(seed, one), ranges) for one in IDS]


@pytest.mark.parametrize(("text", "expected"), [("", 0x811C9DC5), ("a", 0xE40C292C), ("foobar", 0xBF9CF968)])
def test_fnv1a_as_its_authors_publish_it(text: str, expected: int) -> None:
    assert fnv1a(text) == expected


def test_an_id_is_hashed_twice() -> None:
    """The hash of "a" is 3826002220, and that of this text 1854020216: its last four digits count."""
    assert (fnv1a("a"), fnv1a("3826002220")) == (3_826_002_220, 1_854_020_216)
    assert hash_person("", "a") == hash_person("a", "") == 0.0216
    assert (hash_person("", "a", 1), hash_person("", "a", 3)) == (0.22, None)


def test_ranges_begin_where_they_would_under_full_coverage() -> None:
    assert bucket_ranges(2, 0.5) == [(0, 0.25), (0.5, 0.75)]
    assert bucket_ranges(2, 1, [0.4, 0.6]) == [(0, 0.4), (0.4, 1.0)]
    assert bucket_ranges(2, 2, [0.4, 0.1]) == bucket_ranges(2, 1, [1]) == [(0, 0.5), (0.5, 1)]
    assert bucket_ranges(2, -1) == [(0, 0), (0.5, 0.5)]


def test_the_end_of_a_range_is_outside() -> None:
    ranges = [(0.0, 0.25), (0.5, 0.75)]
    assert [choose_variation(one, ranges) for one in (0.0, 0.25, 0.5, 0.74, 0.75, None)] == [0, -1, 1, 1, -1, -1]


@pytest.mark.parametrize("shares", [[0.5, 0.5], [0.1, 0.2, 0.7], [0.9, 0.1]])
def test_groups_have_their_shares(shares: list[float]) -> None:
    found = assign(shares)
    observed = [found.count(position) for position in range(len(shares))]
    assert sum(observed) == len(IDS)
    assert chisquare(observed, [share * len(IDS) for share in shares]).pvalue > 0.01


def test_two_experiments_are_independent() -> None:
    pairs = list(zip(assign([0.5, 0.5]), assign([0.5, 0.5], "tiny:other"), strict=True))
    assert chisquare([pairs.count((first, second)) for first in (0, 1) for second in (0, 1)]).pvalue > 0.01


def test_changed_shares_move_as_few_people_as_possible() -> None:
    pairs = list(zip(assign([0.5, 0.5]), assign([0.4, 0.6]), strict=True))
    assert {pair for pair in pairs if pair[0] != pair[1]} == {(0, 1)}
    assert sum(first != second for first, second in pairs) == pytest.approx(0.1 * len(IDS), rel=0.05)
    joined = zip(assign([0.05, 0.05]), assign([0.5, 0.5]), strict=True)
    assert {pair for pair in joined if pair[0] >= 0} == {(0, 0), (1, 1)}


def test_groups_are_equal_in_two_processes() -> None:
    first, second = (
        subprocess.run([sys.executable, "-c", GROUPS], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed})
        for seed in ("1", "2")
    )
    assert first.stdout == second.stdout
    assert sum(json.loads(first.stdout)) == pytest.approx(500, abs=60)
