"""Nested maps: the three shapes of a column, what is left out, and slices."""

from __future__ import annotations

import pyarrow as pa
import pytest

from dssm_assets.core.errors import SchemaError
from dssm_assets.core.features.nested_maps import NestedMaps, nested_maps

MAP_OF_MAPS = pa.map_(pa.string(), pa.map_(pa.string(), pa.float64()))


def rows_of(array: pa.Array) -> list[list[tuple[str, str, str | None]]]:
    """Returns the entries of each row as outer key, inner key, value."""
    return [entries_of(maps, int(index)) for maps in [nested_maps(array, "m")] for index in maps.map_of_row]


def entries_of(maps: NestedMaps, index: int) -> list[tuple[str, str, str | None]]:
    keys, values, pkeys = maps.inner.keys.to_pylist(), maps.inner.values.to_pylist(), maps.pkeys.to_pylist()
    places = range(maps.offsets[index], maps.offsets[index + 1])
    codes = [(int(maps.pkey_codes[place]), int(maps.inner_codes[place])) for place in places]
    return [(pkeys[pkey], keys[inner], values[inner]) for pkey, inner in codes]


def test_a_text_is_cut_at_its_four_separators() -> None:
    assert rows_of(pa.array(["p^s:1,t:2|q^s:3"])) == [[("p", "s", "1"), ("p", "t", "2"), ("q", "s", "3")]]


def test_the_first_circumflex_and_the_last_colon_divide() -> None:
    assert rows_of(pa.array(["p^q^http://s:1"])) == [[("p", "q^http://s", "1")]]


@pytest.mark.parametrize("text", ["", "p", "p^", "^s:1", "p^:1", "|", "p|^|", None])
def test_an_entry_without_keys_is_left_out(text: str | None) -> None:
    assert rows_of(pa.array([text, "p^s:1"], pa.string())) == [[], [("p", "s", "1")]]


def test_an_inner_key_without_a_value_has_none() -> None:
    assert rows_of(pa.array(["p^s,t:"])) == [[("p", "s", None), ("p", "t", "")]]


def test_an_element_of_a_list_is_one_outer_entry() -> None:
    assert rows_of(pa.array([["p^s:1,t:2", None, "q^s:a|b"], [], None])) == [
        [("p", "s", "1"), ("p", "t", "2"), ("q", "s", "a|b")],
        [],
        [],
    ]


def test_maps_of_maps_also_sliced() -> None:
    array = pa.array(
        [[("x", [("y", 9.0)])], None, [("p", [("s", 1.0), ("t", None)]), ("q", None), ("", [("s", 4.0)])], []], MAP_OF_MAPS
    )
    assert rows_of(array[1:]) == [[], [("p", "s", "1"), ("p", "t", None)], []]


def test_a_map_may_hold_inner_texts() -> None:
    array = pa.array([[("p", "s:1,t:2")], [("q", "s")]], pa.map_(pa.string(), pa.string()))
    assert rows_of(array) == [[("p", "s", "1"), ("p", "t", "2")], [("q", "s", None)]]


def test_equal_texts_are_one_map() -> None:
    maps = nested_maps(pa.array(["p^s:1", None, "p^s:1", "p^s:2"]), "m")
    assert maps.map_of_row[0] == maps.map_of_row[2]
    assert len(maps.pkey_codes) == 2


def test_a_column_without_texts_is_refused() -> None:
    with pytest.raises(SchemaError, match="feature f"):
        nested_maps(pa.array([{"a": 1}]), "feature f")
