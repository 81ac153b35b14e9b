"""Reads key-value inputs: maps of values, and maps of maps.

An entry such as "a:b:3" is split at its last delimiter, because keys are free text while values are mostly numbers. An entry
without a delimiter is a key without a value.
"""

from __future__ import annotations

import re
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

_OUTER_ENTRY: Final = r"(?s)^(?P<key>[^^]*)\^(?P<value>.*)$"


@dataclass(frozen=True)
class KeyValues:
    """The key-value entries of all rows; each distinct entry is stored once.

    Attributes:
        codes: for each entry of a row, its number among the distinct entries, int64 [n].
        offsets: offsets of the rows' entries [R + 1].
        keys: key of each distinct entry as text; never null or empty if a row has the entry.
        values: value of each distinct entry as text; null if it has none.
        numbers: value of each distinct entry as a number; NaN if it has none.
    """

    codes: IntArray
    offsets: Offsets
    keys: pa.Array
    values: pa.Array
    numbers: Numbers


def key_values(array: pa.Array, separator: str, where: str, delimiter: str = ":") -> KeyValues:
    """Returns the entries of a key-value column, in their order. Drops entries without a key.

    Args:
        array: map<key, value>, list<string> of "key:value", or texts of such entries joined by the separator.
        delimiter: one character.
    """
    if pat.is_map(array.type):
        items, offsets = _map_entries(array)
        codes = np.arange(len(items))
        keys, values = (column_values.text_values(items.field(place), where).cast(pa.string()) for place in (0, 1))
        numbers = column_values.number_values(items.field(1), where)
    else:
        entries, offsets = column_values.multi_text_values(array, separator, where)
        codes = column_values.dictionary_codes(entries)
        divider = re.escape(delimiter)
        keys, values = _split(entries.dictionary, f"(?s)^(?P<key>.*){divider}(?P<value>[^{divider}]*)$")
        keys = pc.coalesce(keys, entries.dictionary)
        numbers = column_values.number_values(values, where)
    has_key: Mask = pc.fill_null(pc.not_equal(keys, ""), False).to_numpy(zero_copy_only=False)
    return KeyValues(*_keep(codes, offsets, has_key[codes]), keys, values, numbers)


def _split(texts: pa.Array, pattern: str) -> tuple[pa.Array, pa.Array]:
    """Returns the pattern's groups key and value in each text; both are null if the text does not match."""
    found = pc.extract_regex(texts, pattern)
    return pc.struct_field(found, "key"), pc.struct_field(found, "value")


def _map_entries(array: pa.Array) -> tuple[pa.StructArray, Offsets]:
    fields = [pa.field("key", array.type.key_type, nullable=False), pa.field("value", array.type.item_type)]
    return ragged.flatten(array.cast(pa.list_(pa.field("entries", pa.struct(fields), nullable=False))))


def _keep(codes: IntArray, offsets: Offsets, mask: Mask) -> tuple[IntArray, Offsets]:
    return codes[mask], ragged.offsets_of(mask)[offsets]


@dataclass(frozen=True)
class NestedMaps:
    """The maps of maps in a column. Each distinct text is read once.

    Attributes:
        map_of_row: number of each row's map, int64 [R]. A row without a value has the last map, which is empty.
        offsets: each map's range of inner entries.
        pkeys: the distinct outer keys.
        pkey_codes: the outer key of each inner entry.
        inner: keys, values and numbers of the distinct inner entries; its codes and offsets are not used.
        inner_codes: for each inner entry, its number among the distinct inner entries.
    """

    map_of_row: IntArray
    offsets: Offsets
    pkeys: pa.Array
    pkey_codes: IntArray
    inner: KeyValues
    inner_codes: IntArray


def nested_maps(array: pa.Array, where: str) -> NestedMaps:
    """Reads a column of maps of maps. The entries keep their order.

    Args:
        array: texts "pk^sk:v,sk:v|pk^...", lists of "pk^sk:v,sk:v" texts, or map<key, inner> with any inner column that
            `key_values` reads.
    """
    map_of_row = np.arange(len(array))
    if pat.is_map(array.type):
        items, offsets = _map_entries(array)
        outer, keys, inner_maps = np.arange(len(items)), items.field(0), items.field(1)
    else:
        if not ragged.is_list(array.type):
            texts = column_values.text_values(array, where)
            map_of_row = texts.indices.fill_null(len(texts.dictionary)).to_numpy(zero_copy_only=False).astype(np.int64)
            array = texts.dictionary
        entries, offsets = column_values.multi_text_values(array, "|", where)
        outer = column_values.dictionary_codes(entries)
        keys, inner_maps = _split(entries.dictionary, _OUTER_ENTRY)
    pkeys = column_values.text_values(keys, where)
    outer, offsets = _keep(outer, offsets, ~ragged.null_mask(pkeys.indices)[outer])
    inner = key_values(inner_maps, ",", where)
    lengths = np.diff(inner.offsets)[outer]
    inner_codes = inner.codes[ragged.ranges(inner.offsets[:-1][outer], lengths)]
    pkey_codes = np.repeat(pkeys.indices.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)[outer], lengths)
    bounds = ragged.offsets_of(lengths)[offsets]
    return NestedMaps(map_of_row, np.append(bounds, bounds[-1]), pkeys.dictionary, pkey_codes, inner, inner_codes)
