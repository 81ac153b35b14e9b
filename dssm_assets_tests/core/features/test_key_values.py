"""Key-value inputs: maps, lists and texts read alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given

from dssm_assets.core.errors import SchemaError
from dssm_assets.core.features.key_values import divided, key_values
from dssm_assets_tests.core.features import strategies as cases


def entries(array: pa.Array, separator: str = "\x1d", delimiter: str = ":") -> list[list[tuple[Any, Any, Any]]]:
    found = key_values(array, separator, "input", delimiter)
    numbers = [None if np.isnan(number) else number for number in found.numbers]
    all_entries = [(found.keys[int(c)].as_py(), found.values[int(c)].as_py(), numbers[c]) for c in found.codes]
    return [all_entries[a:b] for a, b in zip(found.offsets[:-1], found.offsets[1:], strict=True)]


def test_text_lists_and_maps_are_read_alike() -> None:
    expected = [[("a", "1", 1.0), ("b", "2", 2.0)], [], [("c", "x", None)]]
    assert entries(pa.array(["a:1\x1db:2", None, "c:x"])) == expected
    assert entries(pa.array([["a:1", "b:2"], [], ["c:x"]])) == expected
    assert entries(pa.array([{"a": "1", "b": "2"}, None, {"c": "x"}], pa.map_(pa.string(), pa.string()))) == expected
    assert entries(pa.array(["a=1|b=2", "", "c=x"]), "|", "=") == expected


def test_the_last_delimiter_divides_and_a_key_may_stand_alone() -> None:
    assert entries(pa.array(["http://a:4\x1dc\x1d:7\x1dd:"])) == [[("http://a", "4", 4.0), ("c", None, None), ("d", "", None)]]
    assert [part.to_pylist() for part in divided(pa.array(["a:b:1", "c", ":", ""]))] == [
        ["a:b", None, "", None],
        ["1", None, "", None],
    ]


def test_keys_of_a_map_are_texts() -> None:
    maps = pa.array([{7: 0.5, 8: None}, {}], pa.map_(pa.int64(), pa.float64()))
    assert entries(maps) == [[("7", "0.5", 0.5), ("8", None, None)], []]
    assert entries(maps.slice(1)) == [[]]
    with pytest.raises(SchemaError, match="input"):
        entries(pa.array([{"a": {"b": 1}}], pa.map_(pa.string(), pa.struct([("b", pa.int64())]))))


@given(cases.list_columns)
def test_a_batch_equals_its_rows(column: pa.Array) -> None:
    assert entries(column) == [row for i in range(len(column)) for row in entries(column[i : i + 1])]
