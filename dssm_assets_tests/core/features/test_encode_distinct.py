"""encode_distinct: the same result as encoding every row, computed from distinct rows where they are few."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.core.errors import SchemaError
from dssm_assets.core.features.generator import FeatureGenerator, encode_distinct
from dssm_assets_tests.core.features import strategies as cases

ID = {"feature_type": "id_feature", "value_dim": 1}
GENERATOR = FeatureGenerator.from_fg_json(
    {
        "features": [
            {**ID, "feature_name": "page", "expression": "context:page"},
            {**ID, "feature_name": "words", "expression": "context:page", "value_dim": 0},
            {**ID, "feature_name": "hour", "expression": "context:hour", "hash_bucket_size": 7},
            {"feature_type": "combo_feature", "feature_name": "both", "expression": ["context:hour", "feature:page"]},
            {**ID, "feature_name": "city", "expression": "user:city"},
        ]
    }
)
PRICED = FeatureGenerator.from_fg_json(
    {
        "features": [
            {"feature_type": "expr_feature", "feature_name": "inverse", "expression": "1 / x", "variables": ["context:x"]}
        ]
    }
)


class RecordingGenerator(FeatureGenerator):
    """A generator that records the number of rows of each call."""

    def __init__(self, original: FeatureGenerator) -> None:
        super().__init__(original.spec, original.hash_function)
        self.rows: list[int] = []

    def encode(self, batch: Any, side: str | None = None, **options: Any) -> pa.Table:
        self.rows.append(len(batch))
        return super().encode(batch, side, **options)


@given(st.lists(st.tuples(cases.texts, st.one_of(st.none(), st.integers(0, 2))), max_size=6), st.integers(1, 9), st.booleans())
def test_encode_distinct_equals_encoding_every_row(distinct: list[tuple[Any, Any]], times: int, is_encoded: bool) -> None:
    pages, hours = zip(*distinct, strict=True) if distinct else ((), ())
    page = pa.array(pages * times, pa.string())
    table = pa.table({"page": page.dictionary_encode() if is_encoded else page, "hour": pa.array(hours * times, pa.int32())})
    expected = GENERATOR.encode(table, side="context")
    found = encode_distinct(GENERATOR, table, "context")
    assert found.schema.equals(expected.schema)
    assert found.to_pylist() == expected.to_pylist()


def test_each_combination_is_encoded_once() -> None:
    recording = RecordingGenerator(GENERATOR)
    pages = pa.chunked_array([pa.array(["a", "b"] * 50).dictionary_encode(), pa.array(["b", None] * 50).dictionary_encode()])
    table = pa.table({"page": pages, "hour": pa.array([3, 3, 4, None] * 50, pa.int32())})
    encoded = encode_distinct(recording, table, "context")
    # (a, 3), (b, 3), (a, 4), (b, null) in the first half, (null, 3), (b, 4), (null, null) in addition in the second.
    assert recording.rows == [7]
    assert encoded.to_pylist() == GENERATOR.encode(table, side="context").to_pylist()


def test_too_many_combinations_are_encoded_row_by_row() -> None:
    recording = RecordingGenerator(GENERATOR)
    table = pa.table({"page": ["a"] * 8, "hour": pa.array([0, 1, 2] + [3] * 5, pa.int32())})
    encode_distinct(recording, table, "context")
    # Four combinations in eight rows.
    assert recording.rows == [8]


@pytest.mark.parametrize("is_encoded", [False, True])
def test_zeros_of_both_signs_are_different_inputs(is_encoded: bool) -> None:
    recording = RecordingGenerator(PRICED)
    x = pa.array([0.0, -0.0] * 8)
    encoded = encode_distinct(recording, pa.table({"x": x.dictionary_encode() if is_encoded else x}), "context")
    assert recording.rows == [16]
    if not is_encoded:
        assert encoded.to_pylist() == PRICED.encode(pa.table({"x": x}), side="context").to_pylist()


def test_lists_are_encoded_row_by_row() -> None:
    recording = RecordingGenerator(GENERATOR)
    table = pa.table({"page": [["a", "b"]] * 8, "hour": [1] * 8})
    with pytest.raises(SchemaError, match="page"):
        encode_distinct(recording, table, "context")
    with pytest.raises(SchemaError, match="input column hour"):
        encode_distinct(recording, pa.table({"page": ["a"] * 8}), "context")
    assert recording.rows == [8, 8]


def test_side_without_features_has_rows_and_no_columns() -> None:
    none = encode_distinct(GENERATOR, pa.table({"x": [1, 1, 1]}), "item")
    assert (none.num_rows, none.num_columns) == (3, 0)
