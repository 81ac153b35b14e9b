"""Key-value inputs: maps, lists of "key:value" texts, and such texts joined by a separator.

Belongs here: the one reading of such a column, for all operators that take one. Does not belong here: what an
operator does with the pairs (`operators/`).

The last delimiter of an entry divides it, because values are mostly numbers while keys are free text. An entry of a
list or text without the delimiter is a key without a value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from dssm_assets.core.arrays import ragged
from dssm_assets.core.arrays.ragged import Offsets
from dssm_assets.core.features import column_values
from dssm_assets.core.features.column_values import Numbers


@dataclass(frozen=True)
class KeyValues:
    """The entries of all rows, one after the other, each described once per distinct entry.

    Attributes:
        codes: which distinct entry each entry is, int64.
        offsets: bounds of each row's entries.
        keys: text of each distinct entry's key; never null or empty.
        values: text of its value; null where there is none.
        numbers: its value as a number; NaN where it is none.
    """

    codes: Any
    offsets: Offsets
    keys: pa.Array
    values: pa.Array
    numbers: Numbers


def key_values(array: pa.Array, separator: str, where: str, delimiter: str = ":") -> KeyValues:
    """Returns the entries of a key-value column in their order; entries without a key are left out.

    Args:
        array: map<key, value>, list<string> of "key:value", or text of such entries joined by the separator.
        separator: what stands between the entries of a text.
        where: words that name the input in an error.
        delimiter: what stands between key and value of a text.

    Raises:
        SchemaError: if keys or values have no text, such as structs.
    """
    if pat.is_map(array.type):
        return _of_map(array, where)
    entries, offsets = column_values.multi_text_values(array, separator, where)
    keys, values = divided(entries.dictionary, delimiter)
    keys = pc.if_else(pc.is_null(keys), entries.dictionary, keys)
    has_key = pc.not_equal(keys, "").to_numpy(zero_copy_only=False)
    codes = column_values.codes_of(entries)
    codes, offsets = _kept(codes, offsets, has_key[codes])
    return KeyValues(codes, offsets, keys, values, column_values.number_values(values, where))


def divided(entries: pa.Array, delimiter: str = ":") -> tuple[pa.Array, pa.Array]:
    """Returns what stands before and after the last delimiter of each text; both null where there is none."""
    parts = pc.split_pattern(entries, delimiter, max_splits=1, reverse=True)
    is_pair = pc.equal(pc.list_value_length(parts), 2)
    at_first, offsets = ragged.flatten(parts)
    none = pa.scalar(None, pa.string())
    first = pa.array(offsets[:-1])
    second = pa.array(np.maximum(offsets[1:] - 1, 0))
    return pc.if_else(is_pair, at_first.take(first), none), pc.if_else(is_pair, at_first.take(second), none)


def _of_map(array: pa.Array, where: str) -> KeyValues:
    lengths = pc.fill_null(pc.list_value_length(array.cast(_as_list(array.type))), 0).to_numpy(zero_copy_only=False)
    items = array.cast(_as_list(array.type)).flatten()
    keys = column_values.text_values(items.field(0), where)
    offsets = ragged.offsets_of(lengths)
    kept = ~ragged.null_mask(keys.indices)
    items = items.filter(pa.array(kept))
    texts = column_values.text_values(items.field(1), where)
    codes, offsets = _kept(np.arange(len(kept)), offsets, kept)
    numbers = column_values.number_values(items.field(1), where)
    key_texts = keys.filter(pa.array(kept)).cast(pa.string())
    return KeyValues(np.arange(len(codes)), offsets, key_texts, texts.cast(pa.string()), numbers)


def _as_list(map_type: pa.MapType) -> pa.DataType:
    fields = [pa.field("key", map_type.key_type, nullable=False), pa.field("value", map_type.item_type)]
    return pa.list_(pa.field("entries", pa.struct(fields), nullable=False))


def _kept(codes: Any, offsets: Offsets, mask: Any) -> tuple[Any, Offsets]:
    kept_before = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(mask, dtype=np.int64)])
    return codes[mask], kept_before[offsets]


OUTER_SEPARATOR: Final = "|"
OUTER_DELIMITER: Final = "^"
INNER_SEPARATOR: Final = ","


@dataclass(frozen=True)
class NestedMaps:
    """The maps of a column, each distinct text once, and their inner entries one after the other.

    Attributes:
        map_of_row: which map each row has, int64; the last one is empty and stands for missing.
        offsets: bounds of each map's entries.
        pkeys: the distinct outer keys.
        pkey_codes: which outer key each entry has.
        inner: the distinct inner entries: their keys, values, numbers. Its codes and offsets are of no use here.
        inner_codes: which distinct inner entry each entry is.
    """

    map_of_row: Any
    offsets: Offsets
    pkeys: pa.Array
    pkey_codes: Any
    inner: KeyValues
    inner_codes: Any


def nested_maps(array: pa.Array, where: str) -> NestedMaps:
    """Returns the maps of a column in their order.

    Args:
        array: text, list of "pk^sk:v,sk:v" texts, or map<key, inner>, where inner is whatever `key_values` reads.
        where: words that name the input in an error.

    Raises:
        SchemaError: if keys or values have no text, such as structs.
    """
    if pat.is_map(array.type):
        return _nested_of_map(array, where)
    if ragged.is_list(array.type):
        return _of_entries(np.arange(len(array)), *column_values.multi_text_values(array, OUTER_SEPARATOR, where), where)
    texts = column_values.text_values(array, where)
    map_of_row = texts.indices.fill_null(len(texts.dictionary)).to_numpy(zero_copy_only=False).astype(np.int64)
    return _of_entries(map_of_row, *column_values.multi_text_values(texts.dictionary, OUTER_SEPARATOR, where), where)


def _of_entries(map_of_row: Any, outer: pa.DictionaryArray, offsets: Offsets, where: str) -> NestedMaps:
    parts = pc.split_pattern(outer.dictionary, OUTER_DELIMITER, max_splits=1)
    flat, bounds = ragged.flatten(parts)
    is_pair = np.diff(bounds) == 2
    pkeys = flat.take(pa.array(bounds[:-1]))
    # What a text without ^ has in place of an inner map is never read: the entry is left out.
    texts = flat.take(pa.array(np.maximum(bounds[1:] - 1, 0)))
    pkeys = pkeys.dictionary_encode()
    is_usable = is_pair & pc.not_equal(pkeys.cast(pa.string()), "").to_numpy(zero_copy_only=False)
    codes = column_values.codes_of(outer)
    kept, offsets = ragged.keep(pa.array(codes), offsets, is_usable[codes])
    places = kept.to_numpy(zero_copy_only=False)
    inner = key_values(texts, INNER_SEPARATOR, where)
    return _nested(map_of_row, offsets, pkeys.dictionary, column_values.codes_of(pkeys)[places], inner, places)


def _nested_of_map(array: pa.Array, where: str) -> NestedMaps:
    array_type = array.type
    fields = [pa.field("key", array_type.key_type, nullable=False), pa.field("value", array_type.item_type)]
    entries = array.cast(pa.list_(pa.field("entries", pa.struct(fields), nullable=False)))
    items, offsets = ragged.flatten(entries)
    pkeys = column_values.text_values(items.field(0), where)
    is_usable = ~ragged.null_mask(pkeys.indices)
    places = np.flatnonzero(is_usable)
    pkeys, offsets = ragged.keep(pkeys, offsets, is_usable)
    inner = key_values(items.field(1), INNER_SEPARATOR, where)
    return _nested(np.arange(len(array)), offsets, pkeys.dictionary, column_values.codes_of(pkeys), inner, places)


def _nested(
    map_of_row: Any, offsets: Offsets, pkeys: pa.Array, pkey_codes: Any, inner: KeyValues, inner_of_outer: Any
) -> NestedMaps:
    """Returns the maps whose outer entries hold these inner maps, an empty map behind them."""
    lengths = np.diff(inner.offsets)[inner_of_outer]
    places = ragged.ranges(inner.offsets[:-1][inner_of_outer], lengths)
    bounds = ragged.offsets_of(lengths)[offsets]
    return NestedMaps(
        map_of_row, np.append(bounds, bounds[-1]), pkeys, np.repeat(pkey_codes, lengths), inner, inner.codes[places]
    )
