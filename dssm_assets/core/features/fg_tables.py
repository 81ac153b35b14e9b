"""Contracts of the tables of feature generation, statistics and feature configuration: keys, columns, meanings."""

from __future__ import annotations

import glob
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

import pyarrow as pa

from dssm_assets.core import columns as col
from dssm_assets.core.features.expressions import Kind
from dssm_assets.core.features.spec import Feature
from dssm_assets.core.schema import ColumnSpec, TableSpec

_ENCODED = {
    "*": "Encoded feature: float32 for a number, 64-bit hash of the text for a category, a list of hashes for several. Null: missing.",
    f"*{col.WEIGHTS_SUFFIX}": "Weight of each value of the feature.",
}
_FEATURE_DATE = ColumnSpec(col.FEATURE_DATE, pa.string(), "Day (YYYY-MM-DD) at whose end the features hold.")
_FEATURE = ColumnSpec(col.FEATURE, pa.string(), "Name of the feature in fg.json.")

ITEM_FEATURES_FG: Final = TableSpec(
    "item_features_fg",
    "one row per item",
    (col.ITEM_ID,),
    (ColumnSpec(col.ITEM_ID, None, "The item."), _FEATURE_DATE),
    _ENCODED,
    is_hot=True,
)
_USER = ColumnSpec(col.USER_ID, None, "The user.")
USER_FEATURES_FG: Final = replace(
    ITEM_FEATURES_FG, name="user_features_fg", grain="one row per user", key=(col.USER_ID,), columns=(_USER, _FEATURE_DATE)
)
USER_HISTORY_FG: Final = TableSpec(
    "user_history_fg",
    "one row per user with a positive event on the day",
    (col.USER_ID,),
    (
        _USER,
        ColumnSpec(col.ITEM_IDS, None, "Items of the user's positive events of the day, by time."),
        ColumnSpec(col.EVENT_TIMES_MS, pa.list_(pa.int64()), "Times of those events, unix milliseconds."),
    ),
    {"*": "Sequence sub-feature `sequence__feature`: one 64-bit hash per item of the list, null where missing."},
)


def describe_features(spec: TableSpec, features: Iterable[Feature]) -> TableSpec:
    """Returns the contract of a table of encoded features. Each column is described by its feature's definition.

    Example: "raw_feature of user:buy_count_7d: a number. Null: missing."
    """
    return replace(spec, extra={**spec.extra, **{glob.escape(feature.name): _describe(feature) for feature in features}})


def _describe(feature: Feature) -> str:
    value = "a number" if feature.kind is Kind.NUMERIC else "the 64-bit hash of a category"
    each = f"{value} per value" if feature.is_multi else value
    if feature.sequence is not None:
        each = f"{each}, per item of the sequence"
    operator, inputs = feature.operator, ", ".join(feature.operator.expression_texts)
    formula = getattr(operator, "expression", None)
    has_formula = isinstance(formula, str) and formula not in operator.expression_texts
    return f"{operator.feature_type}{f' {formula}' if has_formula else ''} of {inputs}: {each}. Null: missing."


def _value_counts(name: str, kind: Kind, value: ColumnSpec) -> TableSpec:
    grain = f"one row per {kind} feature and distinct value among the day's positive samples"
    columns = (_FEATURE, value, ColumnSpec(col.COUNT, pa.int64(), "Number of samples with that value."))
    return TableSpec(name, grain, (col.FEATURE, value.name), columns)


_NO_VALUE = "the null row counts samples without one."
NUMERIC_VALUE_COUNTS: Final = _value_counts(
    "numeric_value_counts", Kind.NUMERIC, ColumnSpec(col.VALUE, pa.float32(), f"The value; {_NO_VALUE}", is_nullable=True)
)
CATEGORY_VALUE_COUNTS: Final = _value_counts(
    "category_value_counts",
    Kind.CATEGORICAL,
    ColumnSpec(col.VALUE_HASH, pa.int64(), f"Hash of the value; {_NO_VALUE}", is_nullable=True),
)
FEATURE_BINNING: Final = TableSpec(
    "feature_binning",
    "one row per numeric feature, over the window",
    (col.FEATURE,),
    (
        _FEATURE,
        ColumnSpec("boundaries", pa.list_(pa.float64()), "Cut points of equal-frequency bins [a, b), ascending."),
        ColumnSpec(col.COUNT, pa.int64(), "Number of samples in the window."),
        ColumnSpec("missing_count", pa.int64(), "Number of samples without a value."),
        ColumnSpec("distinct_count", pa.int64(), "Number of distinct values."),
        ColumnSpec("min", pa.float64(), "Smallest value.", is_nullable=True),
        ColumnSpec("max", pa.float64(), "Largest value.", is_nullable=True),
    ),
)
FEATURE_COUNTS: Final = TableSpec(
    "feature_counts",
    "one row per categorical feature and distinct value over the window, the most frequent first",
    (col.FEATURE, col.COUNT, col.VALUE_HASH),
    CATEGORY_VALUE_COUNTS.columns,
)
_CONFIG_COLUMNS = (
    ColumnSpec(col.FEATURE, pa.string(), "Name of the feature, or `__NUM_STEPS__` / `__DECAY_STEPS__`."),
    ColumnSpec(
        col.FEATURE_INFO,
        pa.string(),
        "JSON: embedding_dim and boundary, vocab_size or hash_bucket_size; null if dropped.",
        is_nullable=True,
    ),
    ColumnSpec(
        col.MESSAGE, pa.string(), "How it was decided; a message `DROP IT: reason` drops the feature.", is_nullable=True
    ),
)
FEATURE_CONFIG: Final = TableSpec("feature_config", "one row per feature", (col.FEATURE,), _CONFIG_COLUMNS)
STEP_CONFIG: Final = TableSpec("step_config", "one row per step setting", (col.FEATURE,), _CONFIG_COLUMNS)
