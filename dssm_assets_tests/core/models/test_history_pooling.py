"""The weights of every pooling by hand, and a batch of rows against one row after the other."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.core.model_config import Pooling, PoolingKind
from dssm_assets.core.models.bags import Bags, offsets_of
from dssm_assets.core.models.history_pooling import MS_PER_DAY, Past, has_ages, pooled, reach

# One user's five events of one sub-feature, oldest first; the fourth has no value. Ages 4, 3, 2, 1, 0 days.
VALUES = [5, 6, 7, 0, 8]
TIMES = [day * MS_PER_DAY for day in range(10, 15)]


def _past(*rows: list[int], times: list[list[int]] | None = None) -> Past:
    flat = [value for row in rows for value in row]
    given_times = None if times is None else np.array([time for row in times for time in row], np.int64)
    return Past((np.array(flat, np.int64),), offsets_of(np.array([len(row) for row in rows])), given_times)


def _one(past: Past, **pooling: Any) -> Bags:
    (bags,) = pooled(Pooling(**pooling), past)
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
        # 5 scales of .5 are 2.5: three events, of which one has no value.
        ({"kind": "recency", "scale": 0.5}, [7, 8], np.exp([-4, 0]) / (1 + math.exp(-4))),
        ({"kind": "recency", "scale": 2, "length": 1}, [8], [1.0]),
        ({"kind": "attention", "length": 3}, [7, 8], [1.0, 1.0]),
    ],
)
def test_weights_by_hand(pooling: dict[str, Any], values: list[int], weights: Any) -> None:
    bags = _one(_past(VALUES, times=[TIMES]), **pooling)
    assert bags.values.tolist() == values
    assert bags.weights == pytest.approx(weights, rel=1e-6)
    assert (bags.offsets.tolist(), bags.weights.dtype) == ([0, len(values)], np.float32)


def test_events_of_one_value_count_together_their_root() -> None:
    # Row 0: value 5 twice, a missing one, value 8; row 1: value 5 once, which is not row 0's. Half per day, ages 3, 2, 1, 0.
    past = _past([5, 5, 0, 8], [5], times=[TIMES[:4], TIMES[:1]])
    bags = _one(past, kind="root", repeats_root=True)
    expected = np.array([0.5**0.5, 0.5**0.5, 1.0]) / (2**0.5 + 1) ** 0.5
    assert bags.values.tolist() == [5, 5, 8, 5]
    assert bags.weights == pytest.approx([*expected, 1.0], rel=1e-6)
    bags = _one(past, kind="mean", half_life_days=1, repeats_root=True)  # 1/8 and 1/4 are 3/8 together, so sqrt(3/8)
    expected = np.array([1 / 8, 1 / 4, 1.0 * (3 / 8) ** 0.5]) / (3 / 8 + (3 / 8) ** 0.5)
    assert bags.weights == pytest.approx([*expected, 1.0], rel=1e-6)


def test_how_far_each_pooling_reaches_and_which_needs_times() -> None:
    assert reach(Pooling(kind="root", length=200)) == 200
    assert reach(Pooling(kind="recency", length=50, scale=2)) == 10
    assert reach(Pooling(kind="recency", length=7, scale=2)) == 7
    assert reach(Pooling(kind="recency", scale=0.01)) == 1
    assert [has_ages(Pooling(kind=kind, half_life_days=3)) for kind in PoolingKind] == [True, True, False, False]
    assert not has_ages(Pooling())
    with pytest.raises(ValueError, match="expected the times"):
        _one(_past(VALUES), half_life_days=3)


def test_sub_features_of_an_event_stay_together_under_attention() -> None:
    # Row 0: (1, 9), (0, 8), (0, 0); row 1 nothing; row 2: (0, 0) and (2, 0).
    first, second = np.array([1, 0, 0, 0, 2]), np.array([9, 8, 0, 0, 0])
    bags = pooled(Pooling(kind="attention"), Past((first, second), np.array([0, 3, 3, 5]), None))
    assert [bag.values.tolist() for bag in bags] == [[1, 0, 2], [9, 8, 0]]
    assert [bag.offsets.tolist() for bag in bags] == [[0, 2, 2, 3]] * 2
    assert bags[0].weights.tolist() == [1, 1, 1]


ROWS = st.lists(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 10**12)), max_size=6), max_size=5)
POOLINGS = st.builds(
    Pooling,
    kind=st.sampled_from(list(PoolingKind)),
    length=st.integers(1, 4) | st.just(5000),
    half_life_days=st.none() | st.floats(1e-3, 1e4),
    scale=st.floats(1e-3, 1e3),
    repeats_root=st.booleans(),
)


@given(ROWS, POOLINGS)
def test_a_batch_is_its_rows_one_by_one_and_missing_values_break_nothing(
    rows: list[list[tuple[int, int]]], pooling: Pooling
) -> None:
    values = [[value for value, _ in row] for row in rows]
    times = [sorted(time for _, time in row) for row in rows]
    whole = _one(_past(*values, times=times), **pooling.model_dump())
    assert np.isfinite(whole.weights).all()
    assert (whole.weights > 0).all() or pooling.half_life_days is not None
    for number, row in enumerate(values):
        alone = _one(_past(row, times=[times[number]]), **pooling.model_dump())
        here = slice(whole.offsets[number], whole.offsets[number + 1])
        assert whole.values[here].tolist() == alone.values.tolist() == [v for v in row[-reach(pooling) :] if v]
        assert whole.weights[here] == pytest.approx(alone.weights)
        if pooling.kind in (PoolingKind.MEAN, PoolingKind.RECENCY) and len(alone.values):
            assert alone.weights.sum() == pytest.approx(1.0, rel=1e-5)
