"""Contracts of the tables of encoded features: each column says how it is computed."""

from __future__ import annotations

from dssm_assets.core.features.fg_tables import USER_FEATURES_FG, describe_features
from dssm_assets.core.features.spec import parse_fg

FG = {
    "features": [
        {"feature_name": "age", "feature_type": "raw_feature", "expression": "user:age"},
        {"feature_name": "tags", "feature_type": "id_feature", "expression": "user:tags"},
        {"feature_name": "town_age", "feature_type": "combo_feature", "expression": ["user:town", "user:age"], "value_dim": 1},
        {"feature_name": "ratio", "feature_type": "expr_feature", "expression": "a / b", "variables": ["user:a", "user:b"]},
        {"feature_name": "buys", "feature_type": "lookup_feature", "map": "user:preference", "key": "const:FOOD"},
        {
            "sequence_name": "clicks",
            "sequence_length": 5,
            "feature_type": "sequence_feature",
            "features": [{"feature_name": "item", "feature_type": "id_feature", "expression": "user:item_ids", "value_dim": 1}],
        },
    ]
}


def test_each_column_says_its_type_and_its_expressions() -> None:
    fg = parse_fg(FG)
    spec = describe_features(USER_FEATURES_FG, [*fg.features, *fg.sequence_features])
    assert {feature.name: spec.describe(feature.name) for feature in [*fg.features, *fg.sequence_features]} == {
        "age": "raw_feature of user:age: a number. Null: missing.",
        "tags": "id_feature of user:tags: the 64-bit hash of a category per value. Null: missing.",
        "town_age": "combo_feature of user:town, user:age: the 64-bit hash of a category. Null: missing.",
        "ratio": "expr_feature a / b of user:a, user:b: a number. Null: missing.",
        "buys": "lookup_feature of user:preference, const:FOOD: a number. Null: missing.",
        "clicks__item": "id_feature of user:item_ids: the 64-bit hash of a category, per item of the sequence. Null: missing.",
    }
    assert spec.describe("user_id") == "The user."
