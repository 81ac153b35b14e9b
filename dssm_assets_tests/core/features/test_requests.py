"""Values of a request: numbers of any width and mappings become what a column of them would hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dssm_assets.core.errors import SchemaError
from dssm_assets.core.features.generator import FeatureGenerator
from dssm_assets.core.features.requests import request_rows

GENERATOR = FeatureGenerator.from_fg_json({"features": [
    {"feature_type": "id_feature", "feature_name": "id", "expression": "user:x"},
    {"feature_type": "raw_feature", "feature_name": "three", "expression": "user:x", "value_dim": 3},
]})  # fmt: skip
LOOKUP = FeatureGenerator.from_fg_json({"features": [
    {"feature_type": "lookup_feature", "feature_name": "texts", "map": "user:m", "key": "user:k", "need_discrete": True},
    {"feature_type": "lookup_feature", "feature_name": "sum", "map": "user:m", "key": "user:k"},
]})  # fmt: skip
BIG = 2**70


def ids(value: Any) -> list[str]:
    found: list[str] = GENERATOR.generate_one({"x": value})["id"]
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
    assert GENERATOR.generate_one({"x": values}) == GENERATOR.generate(column).to_pylist()[0]
    if numbers:
        scalar = pa.table({"x": pa.array(values[:1])})
        assert ids(values[0]) == GENERATOR.generate(scalar, "user").column("id").to_pylist()[0]


def test_integers_beyond_int64_may_be_mixed_with_small_ones() -> None:
    assert ids([1, BIG]) == ["1", str(BIG)]
    assert ids((-5, 2**63, None)) == ["-5", str(2**63)]
    assert ids(np.array([3, 2**63], np.uint64)) == ["3", str(2**63)]
    assert GENERATOR.generate_one({"x": [1, 2, 2**64]})["three"] == [1, 2, 2.0**64]
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
        found = GENERATOR.generate(request_rows(requests, ["x"])).to_pylist()
    except SchemaError:
        return
    assert found == [GENERATOR.generate_one(request) for request in requests]
