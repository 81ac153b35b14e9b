"""The last L events, their weights, and refusal of histories that reach their own moment."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.core.arrays.bags import Bags
from dssm_assets.core.arrays.ragged import offsets_of
from dssm_assets.core.config.model import Model, Pooling, PoolingKind
from dssm_assets.core.errors import LeakError, SchemaError
from dssm_assets.core.models.history_pooling import MS_PER_DAY, HistoryReader, Past, has_ages, pooled, reach
from dssm_assets.core.models.tower_spec import Side, TowerFeature, TowerSpec, tower_spec


def _feature(name: str, side: Side) -> TowerFeature:
    return TowerFeature(name=name, side=side, embedding_name=name, embedding_dim=2, num_embeddings=50)


def _spec(length: int, half_life_days: float | None = None) -> TowerSpec:
    features = [_feature("item", Side.ITEM), _feature("h", Side.SEQUENCE)]
    return tower_spec(features, Model(history_length=length, history_half_life_days=half_life_days))


def _table(days: list[float], indices: list[int]) -> pa.Table:
    times = [round(day * MS_PER_DAY) for day in days]
    return pa.table({"event_time_ms": pa.array(times, pa.int64()), "h": pa.array(indices, pa.int32())})


TABLE = _table([0, 1, 3, 0, 0], [11, 12, 13, 21, 22])


def test_last_events_before_the_end_and_empty_histories() -> None:
    bags, is_empty = HistoryReader(TABLE, _spec(2)).read(np.array([0, 3, 5, 0]), np.array([3, 3, 5, 1]))
    assert is_empty is not None
    assert bags[0].values.tolist() == [12, 13, 11]
    assert bags[0].offsets.tolist() == [0, 2, 2, 2, 3]
    assert bags[0].weights.tolist() == [0.5, 0.5, 1.0]
    assert is_empty.tolist() == [0, 1, 1, 0]


def test_half_life_halves_per_half_life() -> None:
    # Ages from the newest: 3, 2, 0 days; with a half-life of one day 1/8, 1/4, 1, whose sum is 11/8.
    bags, _ = HistoryReader(TABLE, _spec(9, 1.0)).read(np.array([0]), np.array([3]))
    assert bags[0].weights == pytest.approx([1 / 11, 2 / 11, 8 / 11])


def test_ancient_history_still_has_weights() -> None:
    table = _table([0, 30_000, 60_000], [5, 6, 0])
    bags, _ = HistoryReader(table, _spec(9, 0.001)).read(np.array([0]), np.array([3]))
    assert bags[0].values.tolist() == [5, 6]
    assert bags[0].weights.sum() == pytest.approx(1.0)


@given(st.data())
def test_any_moment_gives_the_same_weights(data: st.DataObject) -> None:
    """The contract's ages (from the sample's event) and ours (from the newest event) agree."""
    days = sorted(data.draw(st.lists(st.integers(0, 40), min_size=1, max_size=6)))
    moment = days[-1] + data.draw(st.integers(1, 30))
    bags, _ = HistoryReader(_table([*map(float, days)], [7] * len(days)), _spec(9, 5.0)).read(
        np.array([0]), np.array([len(days)])
    )
    plain = np.array([2.0 ** (-(moment - day) / 5.0) for day in days])
    assert bags[0].weights == pytest.approx(plain / plain.sum(), rel=1e-5)


def test_no_sub_features_no_history() -> None:
    assert HistoryReader(TABLE, _spec(0)).read(np.array([0]), np.array([3])) == ((), None)


def test_history_that_reaches_its_moment_is_a_leak() -> None:
    reader = HistoryReader(TABLE, _spec(2))
    starts, ends = np.array([0, 3]), np.array([2, 3])
    reader.check_causal(starts, ends, np.array([MS_PER_DAY + 1, 0]), "samples")
    with pytest.raises(LeakError, match=r"samples.*first row 0"):
        reader.check_causal(starts, ends, np.array([MS_PER_DAY, 0]), "samples")


@pytest.mark.parametrize(("start", "end"), [(-1, 0), (2, 1), (0, 6)])
def test_bounds_outside_the_table_are_refused(start: int, end: int) -> None:
    with pytest.raises(SchemaError, match="0 <= start <= end <= 5"):
        HistoryReader(TABLE, _spec(2)).check_bounds(np.array([start]), np.array([end]), "users")


def test_several_poolings_read_one_history_each_to_its_own_depth() -> None:
    features = [_feature("item", Side.ITEM), _feature("h", Side.SEQUENCE), _feature("g", Side.SEQUENCE)]
    poolings = [{"kind": "attention", "length": 1}, {"length": 2}, {"kind": "root", "length": 9, "half_life_days": 1.0}]
    table = TABLE.append_column("g", pa.array([1, 0, 3, 4, 5], pa.int32()))
    spec = tower_spec(features, Model(poolings=poolings))
    bags, is_empty = HistoryReader(table, spec).read(np.array([0, 3]), np.array([3, 3]))
    # The mean of the last two, the root of all three, then attention to the last; in each h before g.
    assert [bag.values.tolist() for bag in bags] == [[12, 13], [3], [11, 12, 13], [1, 3], [13], [3]]
    assert [bag.offsets.tolist()[1:] for bag in bags] == [[len(bag.values)] * 2 for bag in bags]
    assert bags[0].weights.tolist() == [0.5, 0.5]
    # Ages 3, 2, 0 of half a life of a day: 1/8, 1/4, 1 over the root of 11/8; without the second 1/8, 1 over that of 9/8.
    assert bags[2].weights == pytest.approx(np.array([0.125, 0.25, 1]) / 1.375**0.5)
    assert bags[3].weights == pytest.approx(np.array([0.125, 1]) / 1.125**0.5)
    assert is_empty is not None
    assert is_empty.tolist() == [0, 1]
    names = [feature.name for view in spec.history_views for feature in view.features]
    assert names == ["h/1_mean", "g/1_mean", "h/2_root", "g/2_root", "h/0_attention", "g/0_attention"]


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
    bags = _one(past, kind="root", sqrt_repeats=True)
    expected = np.array([0.5**0.5, 0.5**0.5, 1.0]) / (2**0.5 + 1) ** 0.5
    assert bags.values.tolist() == [5, 5, 8, 5]
    assert bags.weights == pytest.approx([*expected, 1.0], rel=1e-6)
    bags = _one(past, kind="mean", half_life_days=1, sqrt_repeats=True)  # 1/8 and 1/4 are 3/8 together, so sqrt(3/8)
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
    sqrt_repeats=st.booleans(),
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
