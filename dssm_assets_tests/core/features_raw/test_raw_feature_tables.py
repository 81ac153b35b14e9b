"""The contracts: every column has a meaning."""

from __future__ import annotations

from dssm_assets.core.features_raw import raw_feature_tables
from dssm_assets.core.features_raw.plan import FeaturePlan


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
