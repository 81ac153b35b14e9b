"""Poolings by hand, and row by row."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from dssm_assets.core.arrays.bags import Bags
from dssm_assets.core.arrays.ragged import offsets_of
from dssm_assets.core.config.model import Pooling
from dssm_assets.core.models.poolings import MS_PER_DAY, POOLINGS, HistoryEvents, make_pooling
from dssm_assets.testing import PoolingContract

VALUES = [5, 6, 7, 0, 8]
TIMES = [day * MS_PER_DAY for day in range(10, 15)]
"""One user's five events of one sub-feature, oldest first; the fourth has no value. Ages 4, 3, 2, 1, 0 days."""


def events_of(*rows: list[int], times: list[list[int]] | None = None) -> HistoryEvents:
    flat = [value for row in rows for value in row]
    given_times = None if times is None else np.array([time for row in times for time in row], np.int64)
    return HistoryEvents((np.array(flat, np.int64),), offsets_of(np.array([len(row) for row in rows])), given_times)


def pool_one(events: HistoryEvents, **pooling: Any) -> Bags:
    (bags,) = make_pooling(Pooling(**pooling)).pool(events)
    return bags


@pytest.mark.parametrize(
    ("pooling", "values", "weights"),
    [
        ({"kind": "mean"}, [5, 6, 7, 8], [0.25] * 4),
        ({"kind": "mean", "length": 3}, [7, 8], [0.5] * 2),
        # Four present values: each 1 / sqrt(4). The last two events hold one value: 1 / sqrt(1).
        ({"kind": "root"}, [5, 6, 7, 8], [0.5] * 4),
        ({"kind": "root", "length": 2}, [8], [1.0]),
        # Half per two days: 1/4, 2^-1.5, 1/2, 1 (the missing one is left out).
        ({"kind": "mean", "half_life_days": 2}, [5, 6, 7, 8], np.array([1 / 4, 2**-1.5, 1 / 2, 1]) / (1.75 + 2**-1.5)),
        ({"kind": "root", "half_life_days": 2}, [5, 6, 7, 8], np.array([1 / 4, 2**-1.5, 1 / 2, 1]) / (1.75 + 2**-1.5) ** 0.5),
        # Ranks 4, 3, 2 and 0: a missing value keeps its rank.
        ({"kind": "recency", "scale": 2}, [5, 6, 7, 8], np.exp([-2, -1.5, -1, 0]) / np.exp([-2, -1.5, -1, 0]).sum()),
        # 5 scales of .5 are 2.5: three events, one of which has no value.
        ({"kind": "recency", "scale": 0.5}, [7, 8], np.exp([-4, 0]) / (1 + math.exp(-4))),
        ({"kind": "recency", "scale": 2, "length": 1}, [8], [1.0]),
        ({"kind": "attention", "length": 3}, [7, 8], [1.0, 1.0]),
    ],
)
def test_pooling_weights_by_hand(pooling: dict[str, Any], values: list[int], weights: Any) -> None:
    bags = pool_one(events_of(VALUES, times=[TIMES]), **pooling)
    assert bags.values.tolist() == values
    assert bags.weights == pytest.approx(weights, rel=1e-6)
    assert (bags.offsets.tolist(), bags.weights.dtype) == ([0, len(values)], np.float32)


def test_sqrt_repeats_gives_n_equal_events_the_weight_of_sqrt_n() -> None:
    # Row 0: value 5 twice, a missing one, value 8; row 1: value 5 once, which is not row 0's. Half per day, ages 3, 2, 1, 0.
    events = events_of([5, 5, 0, 8], [5], times=[TIMES[:4], TIMES[:1]])
    bags = pool_one(events, kind="root", sqrt_repeats=True)
    expected = np.array([0.5**0.5, 0.5**0.5, 1.0]) / (2**0.5 + 1) ** 0.5
    assert bags.values.tolist() == [5, 5, 8, 5]
    assert bags.weights == pytest.approx([*expected, 1.0], rel=1e-6)
    bags = pool_one(events, kind="mean", half_life_days=1, sqrt_repeats=True)  # 1/8 and 1/4 are 3/8 together, so sqrt(3/8)
    expected = np.array([1 / 8, 1 / 4, 1.0 * (3 / 8) ** 0.5]) / (3 / 8 + (3 / 8) ** 0.5)
    assert bags.weights == pytest.approx([*expected, 1.0], rel=1e-6)


@pytest.mark.parametrize(
    ("settings", "num_events"),
    [
        ({"kind": "root", "length": 200}, 200),
        ({"kind": "recency", "length": 50, "scale": 2}, 10),
        ({"kind": "recency", "length": 7, "scale": 2}, 7),
        ({"kind": "recency", "scale": 0.01}, 1),
    ],
)
def test_poolings_read_no_more_events_than_have_weight(settings: dict[str, Any], num_events: int) -> None:
    assert make_pooling(Pooling(**settings)).num_events == num_events


def test_attention_keeps_the_sub_features_of_an_event_together() -> None:
    # Row 0: (1, 9), (0, 8), (0, 0); row 1 nothing; row 2: (0, 0) and (2, 0).
    first, second = np.array([1, 0, 0, 0, 2]), np.array([9, 8, 0, 0, 0])
    events = HistoryEvents((first, second), np.array([0, 3, 3, 5]), None)
    bags = make_pooling(Pooling(kind="attention")).pool(events)
    assert [bag.values.tolist() for bag in bags] == [[1, 0, 2], [9, 8, 0]]
    assert [bag.offsets.tolist() for bag in bags] == [[0, 2, 2, 3]] * 2
    assert bags[0].weights.tolist() == [1, 1, 1]


class TestPoolings(PoolingContract):
    names = tuple(POOLINGS)
    settings = (
        {},
        {"length": 1},
        {"length": 4, "half_life_days": 1e-3},
        {"half_life_days": 3.0, "sqrt_repeats": True},
        {"length": 3, "scale": 0.5, "sqrt_repeats": True},
        {"scale": 1e-3},
    )
