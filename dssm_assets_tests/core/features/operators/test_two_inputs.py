"""What operators of two inputs have in common: a batch of hostile columns equals its rows, wrong definitions are refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dssm_assets.core.features.operators.base import Operator
from dssm_assets.core.features.operators.overlap_feature import Method
from dssm_assets.core.features.operators.registry import OPERATORS
from dssm_assets.testing import check_rows
from dssm_assets_tests.core.features.strategies import COLUMNS, MAPS, columns_of

DEFINITIONS: dict[str, dict[str, object]] = {
    "bool_mask_feature": {"expression": ["user:a", "user:b"]},
    "combo_feature": {"expression": ["user:a", "user:b"]},
    "kv_dot_product": {"query": "user:a", "document": "user:b"},
    "overlap_feature": {"query": "user:a", "title": "user:b", "method": "is_equal"},
}
OF_CATEGORIES: list[dict[str, object]] = [{}, {"default_value": "d"}, {"value_dim": 1}, {"value_dim": 1, "default_value": "d"},
                                          {"value_dim": 2}, {"separator": ":"}]  # fmt: skip
VARIANTS: dict[str, list[dict[str, object]]] = {
    "bool_mask_feature": OF_CATEGORIES,
    "combo_feature": [*OF_CATEGORIES, {"value_dim": 3}],
    "kv_dot_product": [{}, {"default_value": "7"}, {"default_value": ""}, {"kv_delimiter": "b"},
                       {"separator": ":", "kv_delimiter": "1"}, {"normalizer": "method=log10"}],
    "overlap_feature": [{"method": method, **keys} for method in Method for keys in ({}, {"default_value": ""}, {"separator": ":"})],
}  # fmt: skip


def operator(kind: str, **keys: object) -> Operator:
    return OPERATORS[kind].model_validate({"feature_name": "f", **DEFINITIONS[kind], **keys})


@pytest.mark.parametrize("kind", DEFINITIONS)
@given(st.data())
def test_batch_equals_its_rows(kind: str, data: st.DataObject) -> None:
    columns = data.draw(columns_of(2, COLUMNS | MAPS if kind == "kv_dot_product" else COLUMNS))
    check_rows(operator(kind, **data.draw(st.sampled_from(VARIANTS[kind]))), *columns)


@pytest.mark.parametrize(
    ("kind", "keys", "sentence"),
    [
        ("bool_mask_feature", {"expression": ["user:v"]}, "at least 2"),
        ("bool_mask_feature", {"expression": ["user:v", "user:m", "user:n"]}, "at most 2"),
        ("bool_mask_feature", {"separator": ""}, "at least 1"),
        ("bool_mask_feature", {"num_buckets": 2, "hash_bucket_size": 9}, "exclude each other"),
        ("combo_feature", {"expression": ["user:a"]}, "at least 2"),
        ("combo_feature", {"expression": "user:a"}, "tuple"),
        ("combo_feature", {"expression": ["user:a", "b"]}, "side:name"),
        ("combo_feature", {"num_buckets": 9}, "num_buckets needs integers"),
        ("combo_feature", {"hash_bucket_size": 9, "vocab_list": ["a"]}, "exclude each other"),
        ("kv_dot_product", {"kv_delimiter": "::"}, "at most 1 character"),
        ("kv_dot_product", {"kv_delimiter": ""}, "at least 1 character"),
        ("kv_dot_product", {"separator": ":"}, "must differ"),
        ("kv_dot_product", {"default_value": "x"}, "finite number"),
        ("kv_dot_product", {"hash_bucket_size": 9}, "Extra inputs"),
        ("overlap_feature", {"method": "similarity"}, "Input should be 'query_common_ratio'"),
        ("overlap_feature", {"separator": ""}, "at least 1 character"),
        ("overlap_feature", {"default_value": "x"}, "finite number"),
        ("overlap_feature", {"value_type": "String"}, "value_type"),
    ],
)
def test_invalid_definitions_are_refused(kind: str, keys: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        operator(kind, **keys)
