"""The plan: what it takes from the configuration."""

from __future__ import annotations

import datetime as dt

from dssm_assets.core.config.features import RawFeatures
from dssm_assets.core.config.pipeline import (
    BehaviorTable,
    Calendar,
    Events,
    Features,
    PipelineConfig,
    SourceTable,
    Tables,
)
from dssm_assets.core.features_raw.plan import FeaturePlan


def test_every_field_comes_from_the_configuration() -> None:
    config = PipelineConfig(
        calendar=Calendar(start=dt.date(2024, 1, 2), timezone="Asia/Kolkata"),
        tables=Tables(
            user=SourceTable(uri="u"), item=SourceTable(uri="i"), behavior=BehaviorTable(uri="b", value_columns=["price"])
        ),
        events=Events(funnel=["expr", "click"], positive=["click"]),
        features=Features(fg={}),
        raw_features=RawFeatures(statistic_days=[2, 5], preference_columns=["brand"]),
    )
    assert FeaturePlan.from_config(config, "2025-03-01") == FeaturePlan(
        funnel=("expr", "click"),
        statistic_days=(2, 5),
        value_columns=("price",),
        preference_columns=("brand",),
        timezone="Asia/Kolkata",
        first_day="2024-01-02",
        last_day="2025-12-31",
    )


def test_generated_columns_by_hand() -> None:
    plan = FeaturePlan(("a", "b"), (1,), ("v",), ("c",), "UTC", "2024-01-01", "2024-12-31")
    common = ["a_count_1d", "b_count_1d", "a_to_b_ratio_1d"]
    tail = ["a_v_sum_1d", "b_v_sum_1d", "days_since_first_event", "days_since_last_event"]
    users = ["a_distinct_items_1d", "b_distinct_items_1d"]
    items = ["a_distinct_users_1d", "b_distinct_users_1d"]
    assert plan.generated("user_id") == ["feature_date", *common, *users, *tail, "c_preference"]
    assert plan.generated("item_id") == ["feature_date", *common, *items, *tail]
