"""One request and a batch of millions are the same: every feature type, hostile values, both public forms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dssm_assets.core.errors import SchemaError
from dssm_assets.core.features.generator import FeatureGenerator
from dssm_assets.core.features.operators.registry import OPERATORS
from dssm_assets.core.features.requests import request_rows
from dssm_assets_tests.core.features import strategies as cases

ID, HASHED = {"feature_type": "id_feature"}, {"hash_bucket_size": 100}
FEATURES: list[dict[str, Any]] = [
    {**ID, "feature_name": "id", "expression": "user:a", **HASHED},
    {**ID, "feature_name": "id_one", "expression": "user:text", "value_dim": 1, "default_value": "d", "vocab_list": ["a", "b"]},
    {**ID, "feature_name": "id_integer", "expression": "user:a", "num_buckets": 8, "default_bucketize_value": 7},
    {**ID, "feature_name": "id_weighted", "expression": "user:a", "weighted": True, "vocab_dict": {"a": 2, "b": 2}},
    {"feature_type": "raw_feature", "feature_name": "raw", "expression": "user:number", "default_value": ""},
    {"feature_type": "raw_feature", "feature_name": "raw_bins", "expression": "user:text", "boundaries": [-1, 0, 7]},
    {"feature_type": "raw_feature", "feature_name": "raw_vector", "expression": "user:a", "value_dim": 2, "separator": "|"},
    {"feature_type": "combo_feature", "feature_name": "combo", "expression": ["user:a", "user:b"], **HASHED},
    {"feature_type": "combo_feature", "feature_name": "combo_of_bins", "expression": ["feature:raw_bins", "user:b"]},
    {"feature_type": "lookup_feature", "feature_name": "lookup", "map": "user:a", "key": "user:b", "combiner": "mean"},
    {"feature_type": "lookup_feature", "feature_name": "lookup_text", "map": "user:a", "key": "user:b", "need_key": True},
    {"feature_type": "match_feature", "feature_name": "match", "nested_map": "user:a", "pkey": "user:b", "skey": "const:ALL"},
    {"feature_type": "overlap_feature", "feature_name": "overlap", "query": "user:a", "title": "user:b", "method": "index_of"},
    {"feature_type": "expr_feature", "feature_name": "expr", "expression": "number > text ? number / text : sqrt(number)",
     "variables": ["user:number", "user:text"]},
    {"feature_type": "kv_dot_product", "feature_name": "dot", "query": "user:a", "document": "user:b"},
    {"feature_type": "bool_mask_feature", "feature_name": "mask", "expression": ["user:a", "user:b"], **HASHED},
    {"feature_type": "sequence_id_feature", "feature_name": "seq", "expression": "user:words", "sequence_length": 2, **HASHED},
    {"feature_type": "sequence_raw_feature", "feature_name": "seq_raw", "expression": "user:words", "boundaries": [0, 1]},
    {"feature_type": "sequence_feature", "sequence_name": "past", "sequence_length": 3, "features": [
        {**ID, "feature_name": "id", "expression": "user:words", **HASHED},
        {**ID, "feature_name": "several", "expression": "user:words", "value_dim": 0, **HASHED},
        {"feature_type": "lookup_feature", "feature_name": "known", "map": "user:a", "key": "item:words"},
    ]},
]  # fmt: skip
GENERATOR = FeatureGenerator.from_fg_json({"features": FEATURES})
several = st.one_of(st.none(), st.lists(cases.texts, max_size=4))
scalars = st.sampled_from([(cases.texts, pa.string()), (cases.floats, pa.float64()), (cases.integers, pa.int64()),
                           (st.one_of(st.none(), st.booleans()), pa.bool_()), (several, pa.list_(pa.string()))])  # fmt: skip


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    kinds = {"a": draw(scalars), "b": draw(scalars), "text": (cases.texts, pa.string()), "number": (cases.floats, pa.float64()),
             "words": draw(st.sampled_from([(cases.texts, pa.string()), (several, pa.list_(pa.string()))]))}  # fmt: skip
    count = draw(st.integers(0, 6))
    return pa.table({
        name: pa.array(draw(st.lists(values, min_size=count, max_size=count)), kind) for name, (values, kind) in kinds.items()
    })  # fmt: skip


def rows(table: pa.Table) -> list[dict[str, Any]]:
    return [{name: column[i].as_py() for name, column in zip(table.column_names, table.columns, strict=True)}
            for i in range(table.num_rows)]  # fmt: skip


@settings(max_examples=10)
@given(tables())
def test_batch_equals_its_requests(table: pa.Table) -> None:
    requests = rows(table)
    assert rows(GENERATOR.generate(table)) == [GENERATOR.generate_one(request) for request in requests]
    assert rows(GENERATOR.bucketize(table)) == [GENERATOR.bucketize_one(request) for request in requests]


@settings(max_examples=10)
@given(tables())
def test_every_bucket_is_an_integer_in_its_range(table: pa.Table) -> None:
    found = GENERATOR.bucketize(table)
    for name, size in (("id", 100), ("combo", 100), ("mask", 100), ("seq", 100), ("id_one", 4), ("id_integer", 8)):
        assert all(bucket is None or 0 <= bucket < size for row in found.column(name).to_pylist() for bucket in row), name


def test_every_feature_type_is_tested() -> None:
    used = {feature["feature_type"] for feature in FEATURES}
    assert set(OPERATORS) - used == {"tokenize_feature"}  # It needs a file: see its own test.


def test_request_may_lack_inputs_and_have_others() -> None:
    generator = FeatureGenerator.from_fg_json({"features": FEATURES[:2]})
    assert generator.generate_one({"a": "x\x1dy", "else": object()}) == {"id": ["x", "y"], "id_one": "d"}
    assert generator.bucketize_one({}) == {"id": [], "id_one": [0]}


def test_plain_values_of_a_request() -> None:
    generator = FeatureGenerator.from_fg_json({"features": [FEATURES[0], FEATURES[9]]})
    texts = [generator.generate_one({"a": value})["id"] for value in (7, 7.0, True, 2**70, [1, 2], (3,), float("nan"), None)]
    assert texts == [["7"], ["7"], ["true"], [str(2**70)], ["1", "2"], ["3"], [], []]
    lookup = FeatureGenerator.from_fg_json({"features": [FEATURES[9]]})
    assert lookup.generate_one({"a": {"k": 2, "l": 4}, "b": ["k", "l"]}) == {"lookup": 3}
    assert lookup.generate_one({"a": {}, "b": "k"}) == {"lookup": 0}


@pytest.mark.parametrize("value", [object(), [1, "a"], [[1], "a"], {"k": object()}, "\ud800"])
def test_value_without_a_column_type_is_named(value: object) -> None:
    generator = FeatureGenerator.from_fg_json({"features": FEATURES[:1]})
    with pytest.raises(SchemaError, match="request, input a"):
        generator.generate_one({"a": value})


def test_side_of_a_request() -> None:
    raw = {"features": [FEATURES[0], {**ID, "feature_name": "i", "expression": "item:i"}]}
    generator = FeatureGenerator.from_fg_json(raw)
    assert generator.generate_one({"a": "x", "i": "y"}, side="item") == {"i": ["y"]}
    with pytest.raises(ValueError, match="moon"):
        generator.generate_one({}, side="moon")


OF_ONE_INPUT = FeatureGenerator.from_fg_json({"features": [
    {"feature_type": "id_feature", "feature_name": "id", "expression": "user:x"},
    {"feature_type": "raw_feature", "feature_name": "three", "expression": "user:x", "value_dim": 3},
]})  # fmt: skip
LOOKUP = FeatureGenerator.from_fg_json({"features": [
    {"feature_type": "lookup_feature", "feature_name": "texts", "map": "user:m", "key": "user:k", "need_discrete": True},
    {"feature_type": "lookup_feature", "feature_name": "sum", "map": "user:m", "key": "user:k"},
]})  # fmt: skip
BIG = 2**70


def ids(value: Any) -> list[str]:
    found: list[str] = OF_ONE_INPUT.generate_one({"x": value})["id"]
    return found


def test_narrow_float_is_its_shortest_decimal() -> None:
    assert ids(np.float32(0.1)) == ids(np.array(0.1, np.float32)) == ["0.1"]
    assert ids([np.float32(0.1), np.float32(2), np.float32("nan")]) == ["0.1", "2"]
    assert ids(np.array([0.1, 16777216], np.float32)) == ["0.1", "16777216"]
    assert ids(np.float64(np.float32(0.1))) == ["0.10000000149011612"]
    assert LOOKUP.generate_one({"m": {"a": np.float32(0.1)}, "k": "a"})["texts"] == ["0.1"]
    assert request_rows([{"x": np.array([[0.1], [0.7]], np.float32)}], ["x"]).to_pylist() == [{"x": [[0.1], [0.7]]}]


@pytest.mark.parametrize("width", [np.float16, np.float32, np.float64])
@given(numbers=st.lists(st.floats(width=16), max_size=4) | st.lists(st.floats(width=32), max_size=4))
def test_array_equals_a_column_of_its_type(width: type[np.floating[Any]], numbers: list[float]) -> None:
    with np.errstate(over="ignore"):
        values = np.array(numbers, width)
    column = pa.table({"x": pa.array([values], pa.list_(pa.from_numpy_dtype(width)))})
    assert OF_ONE_INPUT.generate_one({"x": values}) == OF_ONE_INPUT.generate(column).to_pylist()[0]
    if numbers:
        scalar = pa.table({"x": pa.array(values[:1])})
        assert ids(values[0]) == OF_ONE_INPUT.generate(scalar, "user").column("id").to_pylist()[0]


def test_integers_beyond_int64_may_be_mixed_with_small_ones() -> None:
    assert ids([1, BIG]) == ["1", str(BIG)]
    assert ids((-5, 2**63, None)) == ["-5", str(2**63)]
    assert ids(np.array([3, 2**63], np.uint64)) == ["3", str(2**63)]
    assert OF_ONE_INPUT.generate_one({"x": [1, 2, 2**64]})["three"] == [1, 2, 2.0**64]
    found = LOOKUP.generate_one({"m": {"a": 1, "b": 2**64}, "k": ["b", "a"]})
    assert found == {"texts": [str(2**64), "1"], "sum": 2.0**64}
    assert LOOKUP.generate_one({"m": {7: 1, BIG: 2}, "k": [7, BIG]}) == {"texts": ["1", "2"], "sum": 3}


_ENTRIES = st.none() | st.text(max_size=3) | st.integers() | st.floats(allow_nan=False) | st.booleans()


@given(st.lists(st.one_of(_ENTRIES, st.lists(_ENTRIES, max_size=3)), min_size=1, max_size=4))
@example([None, None])
@example([[], ["a", None], None])
@example([[], [1, 2]])
@example([1, 1.0])
@example(["a", "\ud800"])
def test_rows_of_several_requests_have_the_values_of_each_alone_or_are_refused(values: list[Any]) -> None:
    requests = [{"x": value} for value in values]
    try:
        found = OF_ONE_INPUT.generate(request_rows(requests, ["x"])).to_pylist()
    except SchemaError:
        return
    assert found == [OF_ONE_INPUT.generate_one(request) for request in requests]
