"""Names of columns shared by several tables: the same quantity has the same name everywhere."""

from __future__ import annotations

from typing import Final

USER_ID: Final = "user_id"
ITEM_ID: Final = "item_id"
REQUEST_ID: Final = "request_id"
EVENT: Final = "event"
EVENT_TIME_MS: Final = "event_time_ms"
HOUR: Final = "hour"
WEEKDAY: Final = "weekday"
LABEL: Final = "label"

FEATURE_DATE: Final = "feature_date"
"""Day (YYYY-MM-DD); features of a row are as of the end of that day."""
USER_FEATURE_DATE: Final = "user_feature_date"
ITEM_FEATURE_DATE: Final = "item_feature_date"
USER_ROW: Final = "user_row"
ITEM_ROW: Final = "item_row"
"""Row number of a sample's user or item in its feature table; null if unknown."""

FEATURE: Final = "feature"
FEATURE_INFO: Final = "feature_info"
MESSAGE: Final = "message"
VALUE: Final = "value"
VALUE_HASH: Final = "value_hash"
COUNT: Final = "count"

ITEM_IDS: Final = "item_ids"
EVENT_TIMES_MS: Final = "event_times_ms"
WEIGHT: Final = "weight"

WEIGHTS_SUFFIX: Final = "__weights"
"""Suffix of the column with the weights of a weighted feature's values."""

SCORER: Final = "scorer"
SCOPE: Final = "scope"
POPULATION: Final = "population"
TRUTH_COUNT: Final = "truth_count"

USER_TOWER_EMB: Final = "user_tower_emb"
ITEM_TOWER_EMB: Final = "item_tower_emb"

GT_ITEMS: Final = "gt_items"
GT_IS_WARM: Final = "gt_is_warm"
GT_IS_REPEAT: Final = "gt_is_repeat"
IS_WARM_USER: Final = "is_warm_user"
SEGMENT: Final = "segment"


def feature_weights(feature: str) -> str:
    """Returns the name of the column with the weights of a feature's values."""
    return f"{feature}{WEIGHTS_SUFFIX}"
