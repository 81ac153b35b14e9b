"""sequence_feature: which inputs are sequences, how long they are, and what their elements hold."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.core.errors import SchemaError
from dssm_assets.core.features.generator import FeatureGenerator
from dssm_assets.core.features.operators.sequence_feature import SequenceIdFeature, SequenceRawFeature
from dssm_assets.testing import check_rows
from dssm_assets_tests.core.features import strategies as cases

ID = {"feature_type": "id_feature", "feature_name": "i", "expression": "user:x"}
LOOKUP = {"feature_type": "lookup_feature", "feature_name": "l", "map": "user:m", "key": "item:k"}


def generator(*subs: dict[str, Any], **keys: Any) -> FeatureGenerator:
    sequence = {"feature_type": "sequence_feature", "sequence_name": "s", "features": list(subs), **keys}
    return FeatureGenerator.from_fg_json({"features": [sequence]})


def values(table: dict[str, Any], *subs: dict[str, Any], **keys: Any) -> dict[str, Any]:
    return dict(generator(*subs, **keys).generate(pa.table(table)).to_pydict())


def test_reference_example() -> None:
    table = {"s__x": ["abc\x1defg;hij", "", "hij"]}
    several = {**ID, "value_dim": 0, "hash_bucket_size": 100}
    assert generator(several).bucketize(pa.table(table)).to_pydict() == {"s__i": [[[33, 44], [66]], [], [[66]]]}


def test_lists_texts_and_nested_lists() -> None:
    assert values({"x": ["a;b", None]}, ID) == {"s__i": [["a", "b"], None]}
    assert values({"x": [["a", None, ""], []]}, ID) == {"s__i": [["a", None, None], []]}
    assert values({"x": [[1, 2]]}, ID) == {"s__i": [["1", "2"]]}
    assert values({"x": ["a|b"]}, ID, sequence_delim="|") == {"s__i": [["a", "b"]]}
    assert values({"x": [[["a", "b"], [], ["c"]]]}, {**ID, "value_dim": 0}) == {"s__i": [[["a", "b"], [], ["c"]]]}
    assert values({"x": [["a", ""]]}, {**ID, "default_value": "d"}) == {"s__i": [["a", "d"]]}


def test_qualified_column_comes_first() -> None:
    assert values({"s__x": ["a"], "x": ["b"]}, ID) == {"s__i": [["a"]]}


def test_group_keeps_the_most_recent_elements() -> None:
    table = {"x": ["a;b;c", "d", ""]}
    assert values(table, ID, sequence_length=2) == {"s__i": [["a", "b"], ["d"], []]}
    assert values(table, ID, sequence_length=2, oldest_first=True) == {"s__i": [["b", "c"], ["d"], []]}
    assert values(table, ID) == {"s__i": [["a", "b", "c"], ["d"], []]}


def test_inputs_of_the_row_are_the_same_for_every_element() -> None:
    table = {"m": pa.array([[("a", 1.0), ("b", 2.0)], [("a", 5.0)]], pa.map_(pa.string(), pa.float64())), "k": ["a;b;c", "a"]}
    assert values(table, LOOKUP) == {"s__l": [[1, 2, 0], [5]]}
    cut = values(table, LOOKUP, sequence_length=1, oldest_first=True)
    assert cut == {"s__l": [[0], [5]]}


def test_lengths_must_agree_within_a_group() -> None:
    two = [ID, {**ID, "feature_name": "j", "expression": "item:y"}]
    both = [{"feature_type": "combo_feature", "feature_name": "c", "expression": ["item:x", "item:y"]}]
    assert values({"x": ["a;b"], "y": ["c;d"]}, *both) == {"s__c": [["a_c", "b_d"]]}
    for subs in (two, both):
        with pytest.raises(SchemaError, match="input y: expected lists as long as those of x, got 1 rows where they differ"):
            values({"x": ["a;b", "e"], "y": ["c", "f"]}, *subs)
    with pytest.raises(SchemaError, match="input ids: expected lists as long as those of x"):
        values({"x": ["a;b"], "ids": ["1"]}, ID, sequence_pk="user:ids")


def id_feature(**keys: object) -> SequenceIdFeature:
    return SequenceIdFeature.model_validate({"feature_name": "f", "expression": "user:x", **keys})


def id_values(column: pa.Array, **keys: object) -> list[object]:
    return list(id_feature(**keys).compute([column]).to_pylist())


@given(st.one_of(cases.list_columns, cases.text_columns),
       st.sampled_from([{}, {"default_value": "d"}, {"value_dim": 0}, {"sequence_length": 2}, {"value_dim": 2, "default_value": "d"}]))  # fmt: skip
def test_sequence_id_feature_of_a_batch_equals_its_rows(column: pa.Array, keys: dict[str, object]) -> None:
    check_rows(id_feature(**keys), column)


def test_missing_elements_keep_their_position() -> None:
    assert id_values(pa.array(["c||a|", "", None]), sequence_delim="|") == [["c", None, "a", None], [], None]
    assert id_values(pa.array(["c||a"]), sequence_delim="|", default_value="0") == [["c", "0", "a"]]
    assert id_values(pa.array([[1, None], []])) == [["1", None], []]


def test_column_of_numbers_is_not_a_sequence() -> None:
    with pytest.raises(SchemaError, match="lists or text, got int64"):
        id_values(pa.array([1]))


def raw_feature(**keys: object) -> SequenceRawFeature:
    return SequenceRawFeature.model_validate({"feature_name": "f", "expression": "user:x", **keys})


def raw_values(column: pa.Array, **keys: object) -> list[object]:
    return list(raw_feature(**keys).compute([column]).to_pylist())


@given(st.one_of(cases.list_columns, cases.text_columns),
       st.sampled_from([{}, {"default_value": ""}, {"value_dim": 2}, {"sequence_length": 2, "oldest_first": True}]))  # fmt: skip
def test_sequence_raw_feature_of_a_batch_equals_its_rows(column: pa.Array, keys: dict[str, object]) -> None:
    check_rows(raw_feature(**keys), column)


def test_numbers_of_a_sequence_raw_feature() -> None:
    assert raw_values(pa.array(["0.5;2", "", None, "x;1"])) == [[0.5, 2], [], None, [0, 1]]
    assert raw_values(pa.array([[0.5, None]]), default_value="") == [[0.5, None]]
    assert raw_values(pa.array(["1;2;3"]), sequence_length=2) == [[1, 2]]
    assert raw_values(pa.array(["1;3"]), normalizer="method=minmax,min=1,max=3") == [[0, 1]]


def test_vectors_of_a_sequence_raw_feature() -> None:
    column = pa.array(["0.5\x1d1;0.25\x1d2", "3"])
    assert raw_values(column, value_dim=2) == [[[0.5, 1], [0.25, 2]], [[0, 0]]]
    assert raw_values(pa.array([[[1, 2], [3, 4]]]), value_dim=2) == [[[1, 2], [3, 4]]]
    assert (raw_feature().depth, raw_feature(value_dim=2).depth) == (1, 2)
