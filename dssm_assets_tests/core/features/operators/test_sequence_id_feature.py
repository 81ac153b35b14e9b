"""sequence_id_feature: places of elements, several values in one, lengths."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.core.errors import SchemaError
from dssm_assets.core.features.operators.sequence_id_feature import SequenceIdFeature
from dssm_assets_tests.core.features import strategies as cases


def feature(**keys: object) -> SequenceIdFeature:
    return SequenceIdFeature.model_validate({"feature_name": "f", "expression": "user:x", **keys})


def values(column: pa.Array, **keys: object) -> list[object]:
    return list(feature(**keys).compute([column]).to_pylist())


@given(st.one_of(cases.list_columns, cases.text_columns),
       st.sampled_from([{}, {"default_value": "d"}, {"value_dim": 0}, {"sequence_length": 2}, {"value_dim": 2, "default_value": "d"}]))  # fmt: skip
def test_a_batch_equals_its_rows(column: pa.Array, keys: dict[str, object]) -> None:
    operator = feature(**keys)
    assert cases.rows_of(operator.compute([column])) == cases.one_by_one(operator, column)


def test_missing_elements_keep_their_place() -> None:
    assert values(pa.array(["c||a|", "", None]), sequence_delim="|") == [["c", None, "a", None], [], None]
    assert values(pa.array(["c||a"]), sequence_delim="|", default_value="0") == [["c", "0", "a"]]
    assert values(pa.array([[1, None], []])) == [["1", None], []]


def test_several_values_in_an_element() -> None:
    assert values(pa.array(["4\x1d5;6"]), value_dim=0) == [[["4", "5"], ["6"]]]
    assert values(pa.array([[["4", "5"], [], ["6"]]]), value_dim=1 + 1) == [[["4", "5"], [], ["6"]]]
    assert [feature(**keys).depth for keys in ({}, {"value_dim": 1}, {"value_dim": 0})] == [1, 1, 2]


def test_the_most_recent_elements_are_kept() -> None:
    assert values(pa.array(["a;b;c", "d"]), sequence_length=2) == [["a", "b"], ["d"]]
    assert values(pa.array(["a;b;c", "d"]), sequence_length=2, oldest_first=True) == [["b", "c"], ["d"]]


def test_a_number_is_no_sequence() -> None:
    with pytest.raises(SchemaError, match="lists or text, got int64"):
        values(pa.array([1]))
