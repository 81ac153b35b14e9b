"""The wide tables, by hand: one world of three users, and refused names."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import ibis
import pyarrow as pa
import pytest

from dssm_assets.core.errors import SchemaError
from dssm_assets.core.features_raw.activity import roll_activity, roll_pair_activity
from dssm_assets.core.features_raw.all_features import join_item_features, join_user_features
from dssm_assets.core.features_raw.plan import FeaturePlan
from dssm_assets.core.features_raw.preferences import order_preferences, roll_preferences
from dssm_assets_tests.core.features_raw.worlds import FIRST_DAY, as_text_ids, at, day_name, log, run, with_ds

PLAN = FeaturePlan(("expr", "buy"), (1, 3), ("price",), ("category",), "UTC", FIRST_DAY, "2024-12-31")
DS = day_name(4)
# User 1: day 0 (out of every window), then days 2 and 4. User 9 is in no profile. User 3 never acts.
DAYS = {
    0: log([(1, 10, "expr", at(0), None, "a", None)]),
    2: log(
        [
            (1, 10, "expr", at(2), None, "a", None),
            (1, 11, "expr", at(2, 1), None, "b", None),
            (1, 11, "buy", at(2, 2), 2.5, "b", None),
        ]
    ),
    4: log([(1, 10, "buy", at(4), 0.25, "a", None), (9, 10, "praise", at(4, 7), None, "a", None)]),
}
USERS = pa.table({"user_id": pa.array([3, 1], pa.int64()), "age": pa.array([30, 40], pa.int64())})
ITEMS = pa.table({"item_id": pa.array([12, 10], pa.int64()), "title": ["t12", "t10"]})


def _states(con: Any, text_ids: bool) -> dict[str, Any]:
    days = {day: as_text_ids(table) for day, table in DAYS.items()} if text_ids else DAYS
    whole = with_ds(days)
    sums = {"ds": DS, "statistic_days": [1, 3], "value_columns": ["price"]}
    counted = {"ds": DS, "preference_days": 5, "preference_columns": ["category"], "positive_events": ["buy"]}
    states = {
        "user": roll_activity(whole, entity="user_id", **sums),
        "item": roll_activity(whole, entity="item_id", **sums),
        "pairs": roll_pair_activity(whole, ds=DS, window_days=3),
        "preferences": roll_preferences(whole, **counted),
    }
    return {name: ibis.memtable(run(con, state)) for name, state in states.items()}


def _users(con: Any, profile: pa.Table, plan: FeaturePlan = PLAN, text_ids: bool = False) -> pa.Table:
    states = _states(con, text_ids)
    joined = join_user_features(
        ibis.memtable(profile),
        user_activity=states["user"],
        pair_activity=states["pairs"],
        user_preferences=states["preferences"],
        ds=DS,
        plan=plan,
    )
    return order_preferences(run(con, joined), attributes=plan.preference_columns)


USERS_EXPECTED = {
    "feature_date": ["2024-01-05"] * 3,
    "user_id": [1, 3, 9],
    "age": [40, 30, None],
    "expr_count_1d": [0, 0, 0],
    "expr_count_3d": [2, 0, 0],
    "buy_count_1d": [1, 0, 0],
    "buy_count_3d": [2, 0, 0],
    "expr_to_buy_ratio_1d": [None, None, None],
    "expr_to_buy_ratio_3d": [1.0, None, None],
    "expr_distinct_items_1d": [0, 0, 0],
    "expr_distinct_items_3d": [2, 0, 0],
    "buy_distinct_items_1d": [1, 0, 0],
    "buy_distinct_items_3d": [2, 0, 0],
    "expr_price_sum_1d": [0.0, 0.0, 0.0],
    "expr_price_sum_3d": [0.0, 0.0, 0.0],
    "buy_price_sum_1d": [0.25, 0.0, 0.0],
    "buy_price_sum_3d": [2.75, 0.0, 0.0],
    "days_since_first_event": [4.0, None, 0.0],
    "days_since_last_event": [0.0, None, 0.0],
    "category_preference": [["a:1", "b:1"], [], []],
}


def test_users_by_hand(con) -> None:
    out = _users(con, USERS)
    assert out.to_pydict() == USERS_EXPECTED
    assert out.column_names == list(USERS_EXPECTED)
    assert out.schema.field("expr_count_1d").type == pa.int64()
    assert out.schema.field("category_preference").type.value_type == pa.string()


def test_users_without_preferences(con) -> None:
    out = _users(con, USERS, replace(PLAN, preference_columns=()))
    assert out.to_pydict() == {name: column for name, column in USERS_EXPECTED.items() if name != "category_preference"}


def test_items_by_hand(con) -> None:
    states = _states(con, False)
    expression = join_item_features(
        ibis.memtable(ITEMS), item_activity=states["item"], pair_activity=states["pairs"], ds=DS, plan=PLAN
    )
    out = run(con, expression)
    assert out.column("item_id").to_pylist() == [10, 11, 12]
    assert out.column("title").to_pylist() == ["t10", None, "t12"]
    assert out.column("expr_count_3d").to_pylist() == [1, 1, 0]
    assert out.column("expr_distinct_users_3d").to_pylist() == [1, 1, 0]
    assert out.column("expr_to_buy_ratio_3d").to_pylist() == [1.0, 1.0, None]
    assert out.column("days_since_last_event").to_pylist() == [0.0, 2.0, None]
    assert out.column_names == ["feature_date", "item_id", "title", *PLAN.generated("item_id")[1:]]
    assert not [name for name in out.column_names if name.endswith("_preference")]


def test_days_are_counted_in_the_time_zone(con) -> None:
    # Day 4, 00:00 UTC, is still day 3 in New York; day 0, 00:00 UTC, is the day before the first.
    plan = replace(PLAN, timezone="America/New_York")
    out = _users(con, USERS, plan)
    assert out.column("days_since_last_event").to_pylist() == [1.0, None, 1.0]
    assert out.column("days_since_first_event").to_pylist() == [5.0, None, 1.0]


def test_times_have_an_age_from_their_day_on(con) -> None:
    # At the end of day 4: born on day 1 is 3 days old, on day 4 0 days; one of day 6 does not exist yet.
    profile = pa.table({"user_id": [1, 3, 9], "born": [at(1, 5), at(4, 1), at(6)]})
    plan = replace(PLAN, user_times=("born",))
    found = _users(con, profile, plan)
    assert found.column("days_since_born").to_pylist() == [3.0, 0.0, None]
    assert "days_since_born" in plan.generated("user_id") and "days_since_born" not in plan.generated("item_id")


def test_source_columns_named_like_generated_ones_are_refused_together(con) -> None:
    profile = USERS.append_column("expr_count_1d", pa.array([1, 2])).append_column("feature_date", pa.array(["x", "y"]))
    with pytest.raises(SchemaError, match="2 faults") as caught:
        _users(con, profile)
    assert [fault.where for fault in caught.value.faults] == [
        "table user_table, column expr_count_1d",
        "table user_table, column feature_date",
    ]


def test_equal_generated_names_are_refused(con) -> None:
    # Event "buy" with value "b_c" and event "buy_b" with value "c" would both make buy_b_c_sum_1d.
    plan = replace(PLAN, funnel=("buy", "buy_b"), statistic_days=(1,), value_columns=("b_c", "c"), preference_columns=())
    days = with_ds({0: DAYS[0].append_column("b_c", DAYS[0]["price"]).append_column("c", DAYS[0]["price"])})
    state = roll_activity(days, ds=DS, entity="item_id", statistic_days=[1], value_columns=["b_c", "c"])
    pairs = roll_pair_activity(days, ds=DS, window_days=1)
    with pytest.raises(SchemaError, match="buy_b_c_sum_1d"):
        join_item_features(ibis.memtable(ITEMS), item_activity=state, pair_activity=pairs, ds=DS, plan=plan)
