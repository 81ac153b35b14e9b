"""Weighted features: their weights column, and that the feature configuration marks them."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from dssm_assets.core.columns import FEATURE, FEATURE_INFO, feature_weights
from dssm_assets.core.config.features import Statistics
from dssm_assets.core.errors import FeatureSpecError
from dssm_assets.core.features.generator import FeatureGenerator
from dssm_assets.core.features.spec import parse_fg
from dssm_assets.core.statistics.binning import bin_features
from dssm_assets.core.statistics.bucketizer import Bucketizer
from dssm_assets.core.statistics.feature_config import decide_feature_config
from dssm_assets.core.statistics.value_counts import sort_by_frequency
from dssm_assets_tests.core.statistics.counting import count_categories, count_numbers

LIKES = {"feature_type": "id_feature", "feature_name": "likes", "expression": "user:likes", "weighted": True}
PLAIN = {"feature_type": "id_feature", "feature_name": "plain", "expression": "user:likes"}
FG: dict[str, Any] = {"features": [LIKES, PLAIN]}


def test_weights_are_in_the_column_that_readers_look_up() -> None:
    encoded = FeatureGenerator.from_fg_json(FG).encode(pa.table({"likes": ["a:2\x1db", None]}), side="user")
    assert encoded.column_names == ["likes", feature_weights("likes"), "plain"]
    assert encoded.column(feature_weights("likes")).to_pylist()[0] == [2.0, 1.0]
    assert parse_fg(FG).feature("likes").weights_name == feature_weights("likes")


def test_only_weighted_features_are_configured_with_weights() -> None:
    spec = parse_fg(FG)
    encoded = FeatureGenerator(spec).encode(pa.table({"likes": ["a:2\x1db", "b:3", "c"]}), side="user")
    counts = sort_by_frequency(count_categories(encoded, spec.features))
    config = decide_feature_config(spec, Statistics(), bin_features(count_numbers(encoded, spec.features), 10), counts)
    texts = dict(zip(config.column(FEATURE).to_pylist(), config.column(FEATURE_INFO).to_pylist(), strict=True))
    assert '"is_multi":true,"is_weighted":true' in texts["likes"]
    assert "weight" not in texts["plain"]
    assert [(feature.name, bool(feature.is_weighted)) for feature in Bucketizer(config, counts).features] == [
        ("likes", True),
        ("plain", False),
    ]


@pytest.mark.parametrize(
    "other",
    [
        {**PLAIN, "feature_name": "likes__weights"},
        {**PLAIN, "feature_name": "likes__weights", "expression": "item:x"},
        {
            "feature_type": "sequence_feature",
            "sequence_name": "likes",
            "features": [{"feature_type": "id_feature", "feature_name": "weights", "expression": "user:x"}],
        },
    ],
)
def test_feature_named_like_a_weights_column_is_refused(other: dict[str, Any]) -> None:
    message = "feature likes__weights: expected a unique name, got the name of the weights column of likes"
    with pytest.raises(FeatureSpecError, match=message):
        parse_fg({"features": [LIKES, other]})
    assert parse_fg({"features": [{**LIKES, "weighted": False}, other]})
