"""expr_feature: formulas over columns of every kind, vectors, defaults, and definitions that are refused."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dssm_assets.core.errors import SchemaError
from dssm_assets.core.features.operators.expr_feature import ExprFeature
from dssm_assets.testing import check_rows
from dssm_assets_tests.core.features.strategies import COLUMNS, columns_of

SINGLE = {arrow_type: values for arrow_type, values in COLUMNS.items() if not pa.types.is_nested(arrow_type)}


def feature(expression: str, **keys: object) -> ExprFeature:
    definition = {"feature_name": "f", "expression": expression, "variables": ["user:a", "user:b"], **keys}
    return ExprFeature.model_validate(definition)


def values(expression: str, *columns: pa.Array, **keys: object) -> list[object]:
    variables = [f"user:{name}" for name in "abcd"[: len(columns)]]
    result = feature(expression, variables=variables, **keys).compute(columns)
    assert result.type == pa.float32()
    return list(result.to_pylist())


@given(
    columns_of(2, SINGLE),
    st.sampled_from(["a + b", "a / b", "a == b ? 1 : 0", "a > 0 && b", "log10(a) ^ b", "max(a, 3) * sigmoid(b)", "a & b | 1"]),
    st.sampled_from([{}, {"default_value": ""}, {"normalizer": "method=expression,expr=x > 1e9 ? 1 / 0 : x"}]),
)
def test_batch_equals_its_rows_and_holds_only_finite_numbers(
    columns: tuple[pa.Array, ...], expression: str, keys: dict[str, object]
) -> None:
    operator = feature(expression, **keys)
    check_rows(operator, *columns)
    assert all(np.isfinite(value) for value in operator.compute(columns).to_pylist() if value is not None)


@given(
    columns_of(2),
    st.sampled_from(["dot(a, b)", "euclid_dist(a, b) / len(a)", "std_dev(a) + reduce_max(b)", "len(a) == len(b)"]),
    st.sampled_from([{}, {"default_value": ""}, {"separator": "a"}]),
)
def test_batch_of_vectors_equals_its_rows(columns: tuple[pa.Array, ...], expression: str, keys: dict[str, object]) -> None:
    check_rows(feature(expression, **keys), *columns)


def test_products_of_vectors_from_lists_and_texts() -> None:
    lists = pa.array([[0.2, 0.3], [], None, [0.2, None], [1.0]])
    texts = pa.array(["0.2\x1d0.2", "", None, "1\x1d1", "1\x1d2"])
    assert values("dot(a, b)", lists, texts, default_value="") == [pytest.approx(0.1), None, None, None, None]
    assert values("dot(a, b)", texts, lists, default_value="7") == [pytest.approx(0.1), 7, 7, 7, 7]
    assert values("dot(a, b)", pa.array(["1|2"]), pa.array(["3|4"]), separator="|") == [11]
    assert values("reduce_sum(a) * b", pa.array(["1\x1d2"]), pa.array([4])) == [12]
    assert values("reduce_sum(a)", pa.array([3, None])) == [3, 0]


def test_columns_without_numbers_are_refused() -> None:
    with pytest.raises(SchemaError, match="feature f, input user:b: expected numbers, booleans or text"):
        values("a + b", pa.array([1.0]), pa.array([[1.0]]))
    with pytest.raises(SchemaError, match="feature f, input user:a"):
        values("len(a)", pa.array([[dt.date(2024, 1, 1)]]))


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"expression": "a + c"}, "position 5: expected a variable or a constant .a, b, _pi, _e., got 'c'"),
        ({"expression": "a"}, "does not use the variables b"),
        ({"expression": ""}, "at least 1 character"),
        ({"variables": []}, "at least 1 item"),
        ({"variables": ["a", "user:b"]}, "side:name"),
        (
            {"variables": ["user:a", "item:a"], "expression": "a"},
            "several variables are named a; rename one of them with a raw_feature",
        ),
        ({"variables": ["user:a", "user:a"], "expression": "a"}, "several variables are named a"),
        (
            {"variables": ["user:a", "const:3"], "expression": "a"},
            "a const cannot be a variable; write the number .* instead of const:3",
        ),
        ({"variables": ["user:a-b"], "expression": "a"}, "letters a-z, digits and _ .* got 'a-b'"),
        ({"value_dim": 2}, "Input should be 0 or 1"),
        ({"separator": ""}, "at least 1 character"),
        ({"default_value": "x"}, "finite number"),
        ({"hash_bucket_size": 9}, "Extra inputs"),
        ({"value_type": "String"}, "numeric feature"),
    ],
)
def test_invalid_definitions_are_refused(keys: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        feature(str(keys.get("expression", "a + b")), **{key: value for key, value in keys.items() if key != "expression"})
