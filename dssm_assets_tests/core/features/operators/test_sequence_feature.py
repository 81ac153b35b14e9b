"""sequence_feature: which inputs are sequences, how long they are, and what their elements hold."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from dssm_assets.core.errors import SchemaError
from dssm_assets.core.features.generator import FeatureGenerator

ID = {"feature_type": "id_feature", "feature_name": "i", "expression": "user:x"}
LOOKUP = {"feature_type": "lookup_feature", "feature_name": "l", "map": "user:m", "key": "item:k"}


def generator(*subs: dict[str, Any], **keys: Any) -> FeatureGenerator:
    sequence = {"feature_type": "sequence_feature", "sequence_name": "s", "features": list(subs), **keys}
    return FeatureGenerator.from_fg_json({"features": [sequence]})


def values(table: dict[str, Any], *subs: dict[str, Any], **keys: Any) -> dict[str, Any]:
    return dict(generator(*subs, **keys).generate(pa.table(table)).to_pydict())


def test_the_reference_example() -> None:
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


def test_the_qualified_column_comes_first() -> None:
    assert values({"s__x": ["a"], "x": ["b"]}, ID) == {"s__i": [["a"]]}


def test_the_most_recent_elements_are_kept() -> None:
    table = {"x": ["a;b;c", "d", ""]}
    assert values(table, ID, sequence_length=2) == {"s__i": [["a", "b"], ["d"], []]}
    assert values(table, ID, sequence_length=2, oldest_first=True) == {"s__i": [["b", "c"], ["d"], []]}
    assert values(table, ID) == {"s__i": [["a", "b", "c"], ["d"], []]}


def test_numbers_of_elements() -> None:
    raw = {"feature_type": "raw_feature", "feature_name": "r", "expression": "user:x", "boundaries": [2]}
    assert values({"x": ["1;;3"]}, raw) == {"s__r": [[1, 0, 3]]}
    assert generator(raw).bucketize_one({"x": [1, None, 3]}) == {"s__r": [0, 0, 1]}


def test_inputs_of_the_row_are_the_same_for_every_element() -> None:
    table = {"m": pa.array([[("a", 1.0), ("b", 2.0)], [("a", 5.0)]], pa.map_(pa.string(), pa.float64())), "k": ["a;b;c", "a"]}
    assert values(table, LOOKUP) == {"s__l": [[1, 2, 0], [5]]}
    cut = values(table, LOOKUP, sequence_length=1, oldest_first=True)
    assert cut == {"s__l": [[0], [5]]}


def test_sequence_fields_choose_the_sequences() -> None:
    asked = {**LOOKUP, "key": "user:k", "sequence_fields": ["k"]}
    assert values({"m": ["a:1"], "k": ["a;b"]}, asked) == {"s__l": [[1, 0]]}


def test_lengths_must_agree_within_a_group() -> None:
    two = [ID, {**ID, "feature_name": "j", "expression": "item:y"}]
    both = [{"feature_type": "combo_feature", "feature_name": "c", "expression": ["item:x", "item:y"]}]
    assert values({"x": ["a;b"], "y": ["c;d"]}, *both) == {"s__c": [["a_c", "b_d"]]}
    for subs in (two, both):
        with pytest.raises(SchemaError, match="input y: expected lists as long as those of x, got 1 rows where they differ"):
            values({"x": ["a;b", "e"], "y": ["c", "f"]}, *subs)
    with pytest.raises(SchemaError, match="input ids: expected lists as long as those of x"):
        values({"x": ["a;b"], "ids": ["1"]}, ID, sequence_pk="user:ids")
