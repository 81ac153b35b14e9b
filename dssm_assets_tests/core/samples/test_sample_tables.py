"""The contracts describe every column."""

from __future__ import annotations

import pyarrow as pa
import pytest

from dssm_assets.core.errors import SchemaError
from dssm_assets.core.samples.sample_tables import (
    NEGATIVE_ITEMS,
    POSITIVE_SAMPLE,
    SAMPLE,
    SAMPLE_FG,
    require_types,
)


def test_every_column_of_every_contract_is_described() -> None:
    for spec in (SAMPLE, SAMPLE_FG, POSITIVE_SAMPLE, NEGATIVE_ITEMS):
        assert all(len(column.description) > 10 for column in spec.columns), spec.name
        assert set(spec.key) <= {column.name for column in spec.columns}
        assert spec.describe("any_feature") == spec.extra["*"]
    for spec in (SAMPLE_FG, POSITIVE_SAMPLE, NEGATIVE_ITEMS):
        assert spec.describe("any_feature__weights").startswith("Weight of each value")


def test_require_types_names_every_column_that_differs() -> None:
    expected = pa.schema({"a": pa.int32(), "b": pa.int32()})
    require_types("table t, day 2", pa.schema({"b": pa.int32(), "a": pa.int32()}), expected)
    with pytest.raises(SchemaError) as caught:
        require_types("table t, day 2", pa.schema({"a": pa.list_(pa.int32()), "c": pa.int32()}), expected)
    assert [(f.where, f.expected, f.got) for f in caught.value.faults] == [
        ("table t, day 2, column a", "int32, as on the days before", "list<item: int32>"),
        ("table t, day 2, column b", "int32, as on the days before", "no such column"),
        ("table t, day 2, column c", "no such column, as on the days before", "int32"),
    ]
