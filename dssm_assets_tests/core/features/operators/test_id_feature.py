"""id_feature: the text of every kind of input, multi-values, weights, defaults."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dssm_assets.core.errors import SchemaError
from dssm_assets.core.features.operators.id_feature import IdFeature
from dssm_assets.testing import check_rows
from dssm_assets_tests.core.features import strategies as cases


def feature(**keys: object) -> IdFeature:
    return IdFeature.model_validate({"feature_name": "f", "expression": "user:x", **keys})


def values(column: pa.Array, **keys: object) -> list[object]:
    return list(feature(**keys).compute([column]).to_pylist())


def alone(column: pa.Array, **keys: object) -> list[object]:
    return values(column, value_dim=1, **keys)


@given(cases.single_columns, st.sampled_from([{}, {"value_dim": 1}, {"value_dim": 1, "default_value": "d"}, {"default_value": "d"}, {"value_dim": 2, "default_value": "d"},
                                              {"weighted": True}, {"separator": ":"}]))  # fmt: skip
def test_batch_equals_its_rows(column: pa.Array, keys: dict[str, object]) -> None:
    check_rows(feature(**keys), column)


def test_text_of_numbers_booleans_and_dates() -> None:
    assert alone(pa.array([7, -1, None])) == ["7", "-1", None]
    assert alone(pa.array([7.0, -0.0, 0.5, 1e20, None])) == ["7", "0", "0.5", "1e+20", None]
    assert alone(pa.array([0.1], pa.float32())) == ["0.1"]
    assert alone(pa.array([np.nan, np.inf, -np.inf])) == [None, None, None]
    assert alone(pa.array([True, False, None])) == ["true", "false", None]
    assert alone(pa.array([dt.date(2024, 1, 31)])) == ["2024-01-31"]
    assert alone(pa.nulls(2)) == [None, None]


def test_integer_column_with_gaps_read_as_floats_has_the_same_texts() -> None:
    assert alone(pa.array([1, 2**53, None])) == alone(pa.array([1.0, float(2**53), None]))


def test_default_stands_in_for_null_and_empty_text() -> None:
    column = pa.array(["a", "", None])
    assert alone(column) == ["a", None, None]
    assert alone(column, default_value="none") == ["a", "none", "none"]
    assert alone(column, default_value=-1) == ["a", "-1", "-1"]


def test_value_dim_1_takes_the_text_whole() -> None:
    assert alone(pa.array(["a\x1db"])) == ["a\x1db"]
    with pytest.raises(SchemaError, match=r"feature f, input user:x: expected one value per row .* set value_dim to 0"):
        alone(pa.array([["a"]]))


def test_several_values_from_text_and_from_lists() -> None:
    assert values(pa.array(["a\x1db", "", None, "\x1da"]), value_dim=0) == [["a", "b"], [], [], ["a"]]
    assert values(pa.array([["a", None, ""], None, [], ["b\x1dc"]]), value_dim=0) == [["a"], [], [], ["b\x1dc"]]
    assert values(pa.array([[1, 2, 3], [4]]), value_dim=2) == [["1", "2"], ["4"]]
    assert values(pa.array(["a|b", None]), separator="|", default_value="d") == [["a", "b"], ["d"]]


def weighted(column: pa.Array, **keys: object) -> list[list[tuple[str, float]]]:
    ids, weights = feature(weighted=True, **keys).compute_weighted([column])
    pairs = zip(ids.to_pylist(), weights.to_pylist(), strict=True)
    return [list(zip(row, row_weights, strict=True)) for row, row_weights in pairs]


def test_ids_carry_their_weights() -> None:
    column = pa.array(["a:2\x1db:0\x1dc:-1.5\x1dd", "e:f\x1dg:h:3", ":4", "", None])
    assert weighted(column) == [[("a", 2), ("b", 0), ("c", -1.5), ("d", 1)], [("e:f", 1), ("g:h", 3)], [], [], []]
    assert weighted(pa.array([["a:2", "b:3", "c:4"], []]), value_dim=2, default_value="z") == [[("a", 2), ("b", 3)], [("z", 1)]]
    maps = pa.array([{7: 0.5, 8: None}, {}, None], pa.map_(pa.int64(), pa.float64()))
    assert weighted(maps) == [[("7", 0.5), ("8", 1)], [], []]


@given(cases.list_columns, st.sampled_from([{}, {"value_dim": 2}, {"default_value": "d"}]))
def test_weights_of_a_batch_equal_those_of_its_rows(column: pa.Array, keys: dict[str, object]) -> None:
    assert weighted(column, **keys) == [row for i in range(len(column)) for row in weighted(column[i : i + 1], **keys)]


@pytest.mark.parametrize("keys", [{"value_dim": 1, "weighted": True}, {"num_buckets": 3, "hash_bucket_size": 5},
                                  {"vocab_list": ["a", "a"]}, {"value_type": "Double"}, {"boundaries": [1]}])  # fmt: skip
def test_keys_that_contradict_are_refused(keys: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        feature(**keys)


def test_struct_has_no_text() -> None:
    with pytest.raises(SchemaError, match="column of texts, numbers, booleans or times"):
        values(pa.array([{"a": 1}]))
