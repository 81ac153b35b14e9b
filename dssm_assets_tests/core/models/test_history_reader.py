"""The latest events and their weights; histories that reach their sample are refused."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.core.config.model import Model, Pooling
from dssm_assets.core.errors import LeakError
from dssm_assets.core.models.poolings import MS_PER_DAY
from dssm_assets.core.models.tower_input import HistoryReader
from dssm_assets.core.models.tower_spec import TowerSide, TowerSpec, tower_spec
from dssm_assets_tests.core.models.features import tower_feature


def _spec(length: int, half_life_days: float | None = None) -> TowerSpec:
    features = [tower_feature("item"), tower_feature("h", TowerSide.SEQUENCE, rows=50)]
    poolings = [Pooling(length=length, half_life_days=half_life_days)] if length else []
    return tower_spec(features, Model(history_length=length, poolings=poolings))


def _table(days: list[float], indices: list[int]) -> pa.Table:
    times = [round(day * MS_PER_DAY) for day in days]
    return pa.table({"event_time_ms": pa.array(times, pa.int64()), "h": pa.array(indices, pa.int32())})


TABLE = _table([0, 1, 3, 0, 0], [11, 12, 13, 21, 22])


def test_reader_returns_the_latest_events_and_flags_empty_histories() -> None:
    read = HistoryReader(TABLE, _spec(2)).read(np.array([0, 3, 5, 0]), np.array([3, 3, 5, 1]))
    bags, is_empty = read.bags, read.is_empty_history
    assert is_empty is not None
    assert bags[0].values.tolist() == [12, 13, 11]
    assert bags[0].offsets.tolist() == [0, 2, 2, 2, 3]
    assert bags[0].weights.tolist() == [0.5, 0.5, 1.0]
    assert is_empty.tolist() == [0, 1, 1, 0]


@given(st.data())
def test_ages_from_the_newest_event_and_from_the_sample_give_the_same_weights(data: st.DataObject) -> None:
    days = sorted(data.draw(st.lists(st.integers(0, 40), min_size=1, max_size=6)))
    sample_day = days[-1] + data.draw(st.integers(1, 30))
    table = _table([*map(float, days)], [7] * len(days))
    bags = HistoryReader(table, _spec(9, 5.0)).read(np.array([0]), np.array([len(days)])).bags
    plain = np.array([2.0 ** (-(sample_day - day) / 5.0) for day in days])
    assert bags[0].weights == pytest.approx(plain / plain.sum(), rel=1e-5)


def test_reader_without_sub_features_returns_nothing() -> None:
    read = HistoryReader(TABLE, _spec(0)).read(np.array([0]), np.array([3]))
    assert (read.singles.shape, read.bags, read.is_empty_history, read.sequences) == ((1, 0), (), None, ())


def test_history_that_reaches_its_timestamp_is_a_leak() -> None:
    reader = HistoryReader(TABLE, _spec(2))
    starts, ends = np.array([0, 3]), np.array([2, 3])
    reader.check_causal(starts, ends, np.array([MS_PER_DAY + 1, 0]), where="samples", remedy="end them earlier")
    with pytest.raises(LeakError, match=r"samples.*got 1 with events at or after it; first: row 0,.*end them earlier"):
        reader.check_causal(starts, ends, np.array([MS_PER_DAY, 0]), where="samples", remedy="end them earlier")


def test_each_pooling_reads_as_many_events_as_its_length() -> None:
    features = [tower_feature("item"), *(tower_feature(name, TowerSide.SEQUENCE, rows=50) for name in "hg")]
    poolings = [{"kind": "attention", "length": 1}, {"length": 2}, {"kind": "root", "length": 9, "half_life_days": 1.0}]
    table = TABLE.append_column("g", pa.array([1, 0, 3, 4, 5], pa.int32()))
    spec = tower_spec(features, Model(poolings=poolings))
    read = HistoryReader(table, spec).read(np.array([0, 3]), np.array([3, 3]))
    bags, is_empty = read.bags, read.is_empty_history
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
