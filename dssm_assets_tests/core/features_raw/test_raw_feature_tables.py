"""The contracts: real results keep them, and every column has a meaning."""

from __future__ import annotations

import ibis
import pyarrow as pa

from dssm_assets.core.features_raw import raw_feature_tables
from dssm_assets.core.features_raw.activity import roll_activity, roll_pair_activity
from dssm_assets.core.features_raw.behavior import calendar_columns, collect_user_history, enrich_behavior
from dssm_assets.core.features_raw.plan import FeaturePlan
from dssm_assets.core.features_raw.preferences import roll_preferences
from dssm_assets.core.schema import check_no_nulls, check_schema
from dssm_assets_tests.core.features_raw.worlds import at, log, run, with_ds

DAY = log([(1, 10, "click", at(0), 1.0, "a", "x"), (2, 11, "buy", at(0, 1), 2.0, None, "y")])
ITEMS = pa.table({"item_id": pa.array([10, 11], pa.int64()), "colour": ["red", None]})


def test_states_fit_their_contracts(con) -> None:
    day, days, ds = ibis.memtable(DAY), with_ds({0: DAY}), "2024-01-01"
    sums = {"ds": ds, "statistic_days": [1, 7], "value_columns": ["price"]}
    preferred = {"ds": ds, "preference_days": 7, "preference_columns": ["category"], "positive_events": ["click"]}
    pairs = [
        (raw_feature_tables.USER_ACTIVITY, roll_activity(days, entity="user_id", **sums)),
        (raw_feature_tables.ITEM_ACTIVITY, roll_activity(days, entity="item_id", **sums)),
        (raw_feature_tables.PAIR_ACTIVITY, roll_pair_activity(days, ds=ds, window_days=7)),
        (raw_feature_tables.USER_PREFERENCES, roll_preferences(days, **preferred)),
        (raw_feature_tables.USER_HISTORY, collect_user_history(day, positive_events=["click"], history_columns=["brand"])),
    ]
    for spec, expression in pairs:
        table = run(con, expression)
        check_schema(spec, table.schema)
        check_no_nulls(spec, table)
        assert table.num_rows > 0
        assert [name for name in table.column_names if not spec.describe(name)] == []


def test_behavior_with_calendar_columns_fits_its_contract(con) -> None:
    table = run(con, enrich_behavior(ibis.memtable(DAY), ibis.memtable(ITEMS), item_columns=["colour"]))
    hour, weekday = calendar_columns(table.column("event_time_ms"), "UTC")
    table = table.append_column("hour", hour).append_column("weekday", weekday)
    check_schema(raw_feature_tables.BEHAVIOR, table.schema)
    check_no_nulls(raw_feature_tables.BEHAVIOR, table)


def test_wide_columns_are_described_by_their_kind() -> None:
    plan = FeaturePlan(("expr", "click"), (3,), ("price",), ("brand",), "UTC", "2024-01-01", "2024-12-31")
    meanings = {name: raw_feature_tables.USER_ALL_FEATURE.describe(name) for name in plan.generated("user_id")}
    assert meanings["expr_count_3d"].startswith("Number of these events")
    assert meanings["expr_to_click_ratio_3d"].startswith("Second count")
    assert meanings["click_distinct_items_3d"].startswith("Distinct items")
    assert meanings["click_price_sum_3d"].startswith("Sum")
    assert "value:count" in meanings["brand_preference"]
    assert raw_feature_tables.USER_ALL_FEATURE.describe("age").startswith("Column of the source")
    assert raw_feature_tables.ITEM_ALL_FEATURE.describe("click_distinct_users_3d").startswith("Distinct users")
