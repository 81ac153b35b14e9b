"""raw_feature: what is a number, what is missing, normalizers, and defaults that bypass them."""

from __future__ import annotations

import datetime as dt
import decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dssm_assets.core.errors import SchemaError
from dssm_assets.core.features.operators.raw_feature import RawFeature
from dssm_assets.testing import check_rows
from dssm_assets_tests.core.features import strategies as cases

ZSCORE = "method=zscore,mean=10,standard_deviation=2"
LOG10 = "method=log10,threshold=1e-3,default=-9"


def feature(**keys: object) -> RawFeature:
    return RawFeature.model_validate({"feature_name": "f", "expression": "item:x", **keys})


def values(column: pa.Array, **keys: object) -> list[object]:
    result = feature(**keys).compute([column])
    assert result.type in (pa.float32(), pa.list_(pa.float32()))
    return list(result.to_pylist())


@given(cases.single_columns, st.sampled_from([{}, {"default_value": ""}, {"normalizer": ZSCORE}, {"normalizer": LOG10}]))
def test_batch_equals_its_rows_and_holds_only_finite_numbers(column: pa.Array, keys: dict[str, object]) -> None:
    operator = feature(**keys)
    check_rows(operator, column)
    assert all(np.isfinite(value) for value in operator.compute([column]).to_pylist() if value is not None)


def test_nan_infinities_and_what_float32_cannot_hold_are_missing() -> None:
    column = pa.array([1.5, np.nan, np.inf, -np.inf, 1e39, None])
    assert values(column, default_value="") == [1.5, None, None, None, None, None]
    assert values(column) == [1.5, 0, 0, 0, 0, 0]


def test_texts_that_are_numbers_and_texts_that_are_not() -> None:
    column = pa.array(["1", " 2.5 ", "+3", ".5", "4.", "1e2", "-0", "nan", "inf", "1,5", "0x1", "1_0", "", None, "1e999"])
    assert values(column, default_value="") == [1, 2.5, 3, 0.5, 4, 100, 0, *[None] * 8]


def test_other_types() -> None:
    assert values(pa.array([True, False])) == [1, 0]
    assert values(pa.array([decimal.Decimal("1.25")])) == [1.25]
    assert values(pa.array(["7", "7", None]).dictionary_encode(), default_value="") == [7, 7, None]
    assert values(pa.nulls(1), default_value="5") == [5]
    with pytest.raises(SchemaError, match="feature f, input item:x"):
        values(pa.array([dt.date(2024, 1, 1)]))
    with pytest.raises(SchemaError, match="list"):
        values(pa.array([[1.0]]))


def test_negative_zero_becomes_zero() -> None:
    assert np.signbit(feature().compute([pa.array([-0.0])]).to_numpy()).tolist() == [False]


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"normalizer": "method=log2"}, "unknown normalizer method"),
        ({"default_value": "many"}, "finite number"),
        ({"default_value": "1e39"}, "finite number"),
        ({"boundaries": [2, 1]}, "strictly ascending"),
        ({"boundaries": [1, 1]}, "strictly ascending"),
        # Odd integers above 2**24 are no float32; above 3.4e38 nothing is.
        ({"boundaries": [2**24, 2**24 + 1]}, "strictly ascending as float32"),
        ({"boundaries": [0.1, 0.1 + 1e-12]}, "strictly ascending as float32"),
        ({"boundaries": [1, 1e39]}, "finite"),
        ({"boundaries": [float("-inf"), 1]}, "finite"),
        ({"value_dim": 0}, "greater than or equal to 1"),
        ({"value_dim": 3, "default_value": "1\x1d2"}, "has 2 numbers; value_dim 3 needs 1 or 3"),
    ],
)
def test_bad_parameters_are_refused(keys: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        feature(**keys)


def test_vectors_by_hand() -> None:
    text = pa.array(["0.2\x1d0.5", "", "0.3\x1d0.6", "1", "1\x1dx", "1\x1d2\x1d3", None])
    default = [pytest.approx(0.1), pytest.approx(0.4)]
    found = values(text, value_dim=2, default_value="0.1\x1d0.4")
    assert found == [[pytest.approx(0.2), 0.5], default, [pytest.approx(0.3), pytest.approx(0.6)], *[default] * 4]
    assert values(text, value_dim=2, default_value="") == [found[0], [], found[2], [], [], [], []]
    assert values(pa.array([[1, 2], None, [3]]), value_dim=2) == [[1, 2], [0, 0], [0, 0]]


def test_default_of_a_vector_bypasses_the_normalizer() -> None:
    found = values(
        pa.array(["0.2|0.6", ""]), value_dim=2, separator="|", default_value="9", normalizer="method=minmax,min=0.1,max=0.6"
    )
    assert found == [[pytest.approx(0.2), 1], [9, 9]]


@given(cases.list_columns, st.sampled_from([{"value_dim": 2}, {"value_dim": 2, "default_value": ""}]))
def test_batch_of_vectors_equals_its_rows(column: pa.Array, keys: dict[str, object]) -> None:
    check_rows(feature(**keys), column)
