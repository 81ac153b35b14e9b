"""sequence_raw_feature: numbers and vectors in order."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.core.features.operators.sequence_raw_feature import SequenceRawFeature
from dssm_assets_tests.core.features import strategies as cases


def feature(**keys: object) -> SequenceRawFeature:
    return SequenceRawFeature.model_validate({"feature_name": "f", "expression": "user:x", **keys})


def values(column: pa.Array, **keys: object) -> list[object]:
    return list(feature(**keys).compute([column]).to_pylist())


@given(st.one_of(cases.list_columns, cases.text_columns),
       st.sampled_from([{}, {"default_value": ""}, {"value_dim": 2}, {"sequence_length": 2, "oldest_first": True}]))  # fmt: skip
def test_a_batch_equals_its_rows(column: pa.Array, keys: dict[str, object]) -> None:
    operator = feature(**keys)
    assert cases.rows_of(operator.compute([column])) == cases.one_by_one(operator, column)


def test_numbers_in_order() -> None:
    assert values(pa.array(["0.5;2", "", None, "x;1"])) == [[0.5, 2], [], None, [0, 1]]
    assert values(pa.array([[0.5, None]]), default_value="") == [[0.5, None]]
    assert values(pa.array(["1;2;3"]), sequence_length=2) == [[1, 2]]
    assert values(pa.array(["1;3"]), normalizer="method=minmax,min=1,max=3") == [[0, 1]]


def test_vectors_in_order() -> None:
    column = pa.array(["0.5\x1d1;0.25\x1d2", "3"])
    assert values(column, value_dim=2) == [[[0.5, 1], [0.25, 2]], [[0, 0]]]
    assert values(pa.array([[[1, 2], [3, 4]]]), value_dim=2) == [[[1, 2], [3, 4]]]
    assert (feature().depth, feature(value_dim=2).depth) == (1, 2)


def test_a_length_is_no_negative_number() -> None:
    with pytest.raises(ValueError, match="greater than or equal to 0"):
        feature(sequence_length=-1)
