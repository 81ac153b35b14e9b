"""Key-value inputs: maps, lists and texts read alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given

from dssm_assets.core.errors import SchemaError
from dssm_assets.core.features.maps import NestedMaps, key_values, nested_maps
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


def test_last_delimiter_divides_an_entry_and_a_key_may_have_no_value() -> None:
    assert entries(pa.array(["http://a:4\x1dc\x1d:7\x1dd:"])) == [[("http://a", "4", 4.0), ("c", None, None), ("d", "", None)]]


def test_keys_of_a_map_are_texts() -> None:
    maps = pa.array([{7: 0.5, 8: None}, {}], pa.map_(pa.int64(), pa.float64()))
    assert entries(maps) == [[("7", "0.5", 0.5), ("8", None, None)], []]
    assert entries(maps.slice(1)) == [[]]
    with pytest.raises(SchemaError, match="input"):
        entries(pa.array([{"a": {"b": 1}}], pa.map_(pa.string(), pa.struct([("b", pa.int64())]))))


@given(cases.list_columns)
def test_batch_equals_its_rows(column: pa.Array) -> None:
    assert entries(column) == [row for i in range(len(column)) for row in entries(column[i : i + 1])]


MAP_OF_MAPS = pa.map_(pa.string(), pa.map_(pa.string(), pa.float64()))


def rows_of(array: pa.Array) -> list[list[tuple[str, str, str | None]]]:
    """Returns the entries of each row as outer key, inner key, value."""
    return [entries_of(maps, int(index)) for maps in [nested_maps(array, "m")] for index in maps.map_of_row]


def entries_of(maps: NestedMaps, index: int) -> list[tuple[str, str, str | None]]:
    keys, values, pkeys = maps.inner.keys.to_pylist(), maps.inner.values.to_pylist(), maps.pkeys.to_pylist()
    places = range(maps.offsets[index], maps.offsets[index + 1])
    codes = [(int(maps.pkey_codes[place]), int(maps.inner_codes[place])) for place in places]
    return [(pkeys[pkey], keys[inner], values[inner]) for pkey, inner in codes]


def test_first_circumflex_and_the_last_colon_divide() -> None:
    assert rows_of(pa.array(["p^q^http://s:1"])) == [[("p", "q^http://s", "1")]]


@pytest.mark.parametrize("text", ["", "p", "p^", "^s:1", "p^:1", "|", "p|^|", None])
def test_entry_without_keys_is_left_out(text: str | None) -> None:
    assert rows_of(pa.array([text, "p^s:1"], pa.string())) == [[], [("p", "s", "1")]]


def test_maps_of_maps_also_sliced() -> None:
    array = pa.array(
        [[("x", [("y", 9.0)])], None, [("p", [("s", 1.0), ("t", None)]), ("q", None), ("", [("s", 4.0)])], []], MAP_OF_MAPS
    )
    assert rows_of(array[1:]) == [[], [("p", "s", "1"), ("p", "t", None)], []]


def test_map_may_hold_inner_texts() -> None:
    array = pa.array([[("p", "s:1,t:2")], [("q", "s")]], pa.map_(pa.string(), pa.string()))
    assert rows_of(array) == [[("p", "s", "1"), ("p", "t", "2")], [("q", "s", None)]]


def test_column_without_texts_is_refused() -> None:
    with pytest.raises(SchemaError, match="feature f"):
        nested_maps(pa.array([{"a": 1}]), "feature f")
