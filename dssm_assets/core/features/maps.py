"""How key-value inputs are read: maps of values, and maps of maps.

`key_values` reads a map column, a list of "key:value" texts, or such texts joined by a separator. The last delimiter of an
entry divides it, because values are mostly numbers while keys are free text. An entry without the delimiter is a key
without a value. `nested_maps` reads "key^inner key:value,...|key^..." and the same as lists or map columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from dssm_assets.core.arrays import ragged
from dssm_assets.core.arrays.ragged import IntArray, Mask, Offsets
from dssm_assets.core.features import column_values
from dssm_assets.core.features.column_values import Numbers

OUTER_SEPARATOR: Final = "|"
OUTER_DELIMITER: Final = "^"
INNER_SEPARATOR: Final = ","


@dataclass(frozen=True)
class KeyValues:
    """The entries of all rows, each described once per distinct entry.

    Attributes:
        codes: the distinct entry of each entry, int64 [n].
        offsets: offsets of the rows' entries [R + 1].
        keys: text of the key of each distinct entry; never null or empty.
        values: text of its value; null where it has none.
        numbers: its value as a number; NaN where it has none.
    """

    codes: IntArray
    offsets: Offsets
    keys: pa.Array
    values: pa.Array
    numbers: Numbers


def key_values(array: pa.Array, separator: str, where: str, delimiter: str = ":") -> KeyValues:
    """Returns the entries of a key-value column in their order, without entries that have no key.

    Args:
        array: map<key, value>, list<string> of "key:value", or texts of such entries joined by the separator.

    Raises:
        SchemaError: keys or values have no text, such as structs.
    """
    if pat.is_map(array.type):
        return _read_map(array, where)
    entries, offsets = column_values.multi_text_values(array, separator, where)
    keys, values = split_at_last(entries.dictionary, delimiter)
    keys = pc.if_else(pc.is_null(keys), entries.dictionary, keys)
    has_key = pc.not_equal(keys, "").to_numpy(zero_copy_only=False)
    codes = column_values.dictionary_codes(entries)
    codes, offsets = _keep(codes, offsets, has_key[codes])
    return KeyValues(codes, offsets, keys, values, column_values.number_values(values, where))


def split_at_last(texts: pa.Array, delimiter: str = ":") -> tuple[pa.Array, pa.Array]:
    """Returns the part of each text before its last delimiter and the part after it; both null without a delimiter."""
    parts = pc.split_pattern(texts, delimiter, max_splits=1, reverse=True)
    is_pair = pc.equal(pc.list_value_length(parts), 2)
    flat, offsets = ragged.flatten(parts)
    none = pa.scalar(None, pa.string())
    before = flat.take(pa.array(offsets[:-1]))
    after = flat.take(pa.array(np.maximum(offsets[1:] - 1, 0)))
    return pc.if_else(is_pair, before, none), pc.if_else(is_pair, after, none)


def _read_map(array: pa.Array, where: str) -> KeyValues:
    items, offsets = _map_entries(array)
    keys = column_values.text_values(items.field(0), where)
    has_key = ~ragged.null_mask(keys.indices)
    items = items.filter(pa.array(has_key))
    texts = column_values.text_values(items.field(1), where)
    codes, offsets = _keep(np.arange(len(has_key)), offsets, has_key)
    numbers = column_values.number_values(items.field(1), where)
    key_texts = keys.filter(pa.array(has_key)).cast(pa.string())
    return KeyValues(np.arange(len(codes)), offsets, key_texts, texts.cast(pa.string()), numbers)


def _map_entries(array: pa.Array) -> tuple[pa.StructArray, Offsets]:
    fields = [pa.field("key", array.type.key_type, nullable=False), pa.field("value", array.type.item_type)]
    return ragged.flatten(array.cast(pa.list_(pa.field("entries", pa.struct(fields), nullable=False))))


def _keep(codes: IntArray, offsets: Offsets, mask: Mask) -> tuple[IntArray, Offsets]:
    return codes[mask], ragged.offsets_of(mask)[offsets]


@dataclass(frozen=True)
class NestedMaps:
    """The maps of maps of a column, each distinct text once, with their inner entries one after the other.

    Attributes:
        map_of_row: the map of each row, int64 [R]; the last map is empty and is that of missing values.
        offsets: offsets of the maps' inner entries.
        pkeys: the distinct outer keys.
        pkey_codes: the outer key of each inner entry.
        inner: keys, values and numbers of the distinct inner entries; its codes and offsets are not used.
        inner_codes: the distinct inner entry of each inner entry.
    """

    map_of_row: IntArray
    offsets: Offsets
    pkeys: pa.Array
    pkey_codes: IntArray
    inner: KeyValues
    inner_codes: IntArray


def nested_maps(array: pa.Array, where: str) -> NestedMaps:
    """Returns the maps of a column in their order.

    Args:
        array: texts, lists of "pk^sk:v,sk:v" texts, or map<key, inner> with any inner column that `key_values` reads.

    Raises:
        SchemaError: keys or values have no text, such as structs.
    """
    if pat.is_map(array.type):
        return _read_nested_map(array, where)
    if ragged.is_list(array.type):
        outer, offsets = column_values.multi_text_values(array, OUTER_SEPARATOR, where)
        return _split_outer(np.arange(len(array)), outer, offsets, where)
    texts = column_values.text_values(array, where)
    map_of_row = texts.indices.fill_null(len(texts.dictionary)).to_numpy(zero_copy_only=False).astype(np.int64)
    outer, offsets = column_values.multi_text_values(texts.dictionary, OUTER_SEPARATOR, where)
    return _split_outer(map_of_row, outer, offsets, where)


def _split_outer(map_of_row: IntArray, outer: pa.DictionaryArray, offsets: Offsets, where: str) -> NestedMaps:
    """Returns the maps whose entries are the texts "pk^inner map" of `outer`."""
    parts = pc.split_pattern(outer.dictionary, OUTER_DELIMITER, max_splits=1)
    flat, bounds = ragged.flatten(parts)
    is_pair = np.diff(bounds) == 2
    pkeys = flat.take(pa.array(bounds[:-1])).dictionary_encode()
    # A text without ^ has no inner map: whatever is read in its place is dropped with the entry.
    inner_texts = flat.take(pa.array(np.maximum(bounds[1:] - 1, 0)))
    is_usable = is_pair & pc.not_equal(pkeys.cast(pa.string()), "").to_numpy(zero_copy_only=False)
    codes = column_values.dictionary_codes(outer)
    positions, offsets = _keep(codes, offsets, is_usable[codes])
    inner = key_values(inner_texts, INNER_SEPARATOR, where)
    pkey_codes = column_values.dictionary_codes(pkeys)[positions]
    return _nest(map_of_row, offsets, pkeys.dictionary, pkey_codes, inner, positions)


def _read_nested_map(array: pa.Array, where: str) -> NestedMaps:
    items, offsets = _map_entries(array)
    pkeys = column_values.text_values(items.field(0), where)
    is_usable = ~ragged.null_mask(pkeys.indices)
    pkeys, offsets = ragged.filter_values(pkeys, offsets, is_usable)
    inner = key_values(items.field(1), INNER_SEPARATOR, where)
    pkey_codes = column_values.dictionary_codes(pkeys)
    return _nest(np.arange(len(array)), offsets, pkeys.dictionary, pkey_codes, inner, np.flatnonzero(is_usable))


def _nest(
    map_of_row: IntArray, offsets: Offsets, pkeys: pa.Array, pkey_codes: IntArray, inner: KeyValues, inner_of_outer: IntArray
) -> NestedMaps:
    """Returns the maps whose outer entries hold the given rows of `inner`, followed by an empty map."""
    lengths = np.diff(inner.offsets)[inner_of_outer]
    positions = ragged.ranges(inner.offsets[:-1][inner_of_outer], lengths)
    bounds = ragged.offsets_of(lengths)[offsets]
    return NestedMaps(
        map_of_row, np.append(bounds, bounds[-1]), pkeys, np.repeat(pkey_codes, lengths), inner, inner.codes[positions]
    )
