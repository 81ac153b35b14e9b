"""Weighted features: their weights column, and that the feature configuration marks them."""

from __future__ import annotations

from typing import Any

import pytest

from dssm_assets.core.errors import FeatureSpecError
from dssm_assets.core.features.spec import parse_fg

LIKES = {"feature_type": "id_feature", "feature_name": "likes", "expression": "user:likes", "weighted": True}
PLAIN = {"feature_type": "id_feature", "feature_name": "plain", "expression": "user:likes"}


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
