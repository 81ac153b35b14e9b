"""The activity state, by hand."""

from __future__ import annotations

import math
from functools import partial

import ibis
import pyarrow as pa

from dssm_assets.core.features_raw.activity import count_counterparts, roll_activity, roll_pair_activity
from dssm_assets_tests.core.features_raw.worlds import as_text_ids, at, day_name, log, run, with_ds

DAY0 = log([(1, 10, "click", at(0, 7), 1.5, "a", None), (1, 10, "click", at(0, 9), None, "a", None)])
DAY1 = log([(1, 11, "click", at(1, 3), 0.00005, "b", None), (2, 11, "buy", at(1, 4), -2.0, "b", None)])
EMPTY = log([])


def _roll(con, days, previous=None, **changes):
    """Returns the state of the last of some days: from that of the day before if it is given, else of all days."""
    options = {"entity": "user_id", "statistic_days": [1, 2], "value_columns": ["price"], **changes}
    state = None if previous is None else ibis.memtable(previous)
    return run(con, roll_activity(with_ds(days), state, ds=day_name(max(days)), **options))


def test_three_days_by_hand(con) -> None:
    first = _roll(con, {0: DAY0})
    assert first.to_pylist() == [
        {
            "user_id": 1,
            "event": "click",
            "count_1d": 2,
            "count_2d": 2,
            "count_total": 2,
            "price_sum_1d_e4": 15_000,
            "price_sum_2d_e4": 15_000,
            "first_event_time_ms": at(0, 7),
            "last_event_time_ms": at(0, 9),
        }
    ]
    second = _roll(con, {0: DAY0, 1: DAY1}, first)
    assert second.select(["user_id", "event", "count_1d", "count_2d", "count_total"]).to_pydict() == {
        "user_id": [1, 2],
        "event": ["click", "buy"],
        "count_1d": [1, 1],
        "count_2d": [3, 1],
        "count_total": [3, 1],
    }
    # 0.00005 is half a unit of 1/10,000 and rounds away from 0.
    assert second.column("price_sum_1d_e4").to_pylist() == [1, -20_000]
    assert second.column("price_sum_2d_e4").to_pylist() == [15_001, -20_000]
    assert second.column("first_event_time_ms").to_pylist() == [at(0, 7), at(1, 4)]
    assert second.column("last_event_time_ms").to_pylist() == [at(1, 3), at(1, 4)]


def test_rows_stay_when_all_windows_are_empty(con) -> None:
    state = _roll(con, {0: DAY0})
    state = _roll(con, {0: DAY0, 1: EMPTY}, state)
    state = _roll(con, {0: DAY0, 1: EMPTY, 2: EMPTY}, state)
    assert state.num_rows == 1
    assert state.to_pylist()[0] | {"count_1d": 0, "count_2d": 0, "count_total": 2, "price_sum_2d_e4": 0} == state.to_pylist()[0]
    assert state.column("last_event_time_ms").to_pylist() == [at(0, 9)]


def test_value_sums_round_each_value_away_from_zero(con) -> None:
    values = [0.00005, -0.00005, math.nan, None, 0.00004]
    day = log([(1, 10, "click", at(0, n), value, None, None) for n, value in enumerate(values)])
    assert _roll(con, {0: day}).column("price_sum_1d_e4").to_pylist() == [0]
    assert _roll(con, {0: day.slice(0, 1)}).column("price_sum_1d_e4").to_pylist() == [1]
    assert _roll(con, {0: day.slice(1, 1)}).column("price_sum_1d_e4").to_pylist() == [-1]


def test_items_and_text_ids(con) -> None:
    out = _roll(con, {1: as_text_ids(DAY1)}, entity="item_id", statistic_days=[1], value_columns=[])
    assert out.column("item_id").to_pylist() == ["11", "11"]
    assert out.column("event").to_pylist() == ["buy", "click"]
    assert out.schema.field("count_1d").type == pa.int64()


DAY0_PAIRS = log([(1, 10, "click", at(0), None, None, None), (1, 11, "click", at(0), None, None, None)])
DAY1_PAIRS = log([(1, 10, "click", at(1), None, None, None), (1, 10, "click", at(1, 5), None, None, None)])
DAY3 = log([(2, 10, "buy", at(3), None, None, None)])


def test_pair_is_renewed_and_leaves_with_the_window(con) -> None:
    roll = partial(roll_pair_activity, window_days=3)
    first = run(con, roll(with_ds({0: DAY0_PAIRS}), ds=day_name(0)))
    second = run(con, roll(with_ds({1: DAY1_PAIRS}), ibis.memtable(first), ds=day_name(1)))
    assert second.column("item_id").to_pylist() == [10, 11]
    assert second.column("last_date").to_pylist() == ["2024-01-02", "2024-01-01"]
    # Day 3's window of 3 days starts with day 1: (1, 11) has left, (1, 10) has not.
    third = run(con, roll(with_ds({3: DAY3}), ibis.memtable(second), ds=day_name(3)))
    assert third.to_pydict() == {
        "user_id": [1, 2],
        "item_id": [10, 10],
        "event": ["click", "buy"],
        "last_date": ["2024-01-02", "2024-01-04"],
    }
    scratch = run(con, roll(with_ds({0: DAY0_PAIRS, 1: DAY1_PAIRS, 3: DAY3}), ds=day_name(3)))
    assert scratch.equals(third)


def test_count_counterparts_by_hand(con) -> None:
    pairs = pa.table(
        {
            "user_id": pa.array([1, 1, 1, 2], pa.int64()),
            "item_id": pa.array([10, 11, 11, 10], pa.int64()),
            "event": ["click", "click", "buy", "click"],
            "last_date": ["2024-01-03", "2024-01-02", "2024-01-03", "2024-01-01"],
        }
    )
    users = run(con, count_counterparts(ibis.memtable(pairs), "user_id", "2024-01-03", [1, 3], ["click"]).order_by("user_id"))
    assert users.to_pydict() == {
        "user_id": [1, 2],
        "click_distinct_items_1d": [1, 0],
        "click_distinct_items_3d": [2, 1],
    }
    items = run(
        con,
        count_counterparts(ibis.memtable(as_text_ids(pairs)), "item_id", "2024-01-03", [3], ["click", "buy"]).order_by(
            "item_id"
        ),
    )
    assert items.to_pydict() == {
        "item_id": ["10", "11"],
        "click_distinct_users_3d": [2, 1],
        "buy_distinct_users_3d": [0, 1],
    }
    assert items.schema.field("buy_distinct_users_3d").type == pa.int64()
