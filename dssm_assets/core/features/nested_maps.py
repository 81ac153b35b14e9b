"""Nested maps: columns of which each row maps outer keys to maps of numbers or texts.

Belongs here: the one reading of such a column. Does not belong here: finding keys in it (`operators/match_feature.py`)
and how an inner map reads (`key_values.py`).

As text, a nested map is "pk1^sk1:0.2,sk2:0.3|pk2^sk4:0.1": | stands between outer entries, the first ^ divides outer
key and inner map, a comma stands between inner entries, the last colon divides one. In a list every element is one
outer entry. An outer entry without ^, an outer or inner key that is empty: left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from dssm_assets.core.features import lists, text_values
from dssm_assets.core.features.key_values import KeyValues, key_values
from dssm_assets.core.features.lists import Offsets

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
        return _of_map(array, where)
    if lists.is_list(array.type):
        return _of_entries(np.arange(len(array)), *text_values.multi_text_values(array, OUTER_SEPARATOR, where), where)
    texts = text_values.text_values(array, where)
    map_of_row = texts.indices.fill_null(len(texts.dictionary)).to_numpy(zero_copy_only=False).astype(np.int64)
    return _of_entries(map_of_row, *text_values.multi_text_values(texts.dictionary, OUTER_SEPARATOR, where), where)


def _of_entries(map_of_row: Any, outer: pa.DictionaryArray, offsets: Offsets, where: str) -> NestedMaps:
    parts = pc.split_pattern(outer.dictionary, OUTER_DELIMITER, max_splits=1)
    flat, bounds = lists.flatten(parts)
    is_pair = np.diff(bounds) == 2
    pkeys = flat.take(pa.array(bounds[:-1]))
    # What a text without ^ has in place of an inner map is never read: the entry is left out.
    texts = flat.take(pa.array(np.maximum(bounds[1:] - 1, 0)))
    pkeys = pkeys.dictionary_encode()
    is_usable = is_pair & pc.not_equal(pkeys.cast(pa.string()), "").to_numpy(zero_copy_only=False)
    codes = text_values.codes_of(outer)
    kept, offsets = lists.keep(pa.array(codes), offsets, is_usable[codes])
    places = kept.to_numpy(zero_copy_only=False)
    inner = key_values(texts, INNER_SEPARATOR, where)
    return _nested(map_of_row, offsets, pkeys.dictionary, text_values.codes_of(pkeys)[places], inner, places)


def _of_map(array: pa.Array, where: str) -> NestedMaps:
    array_type = array.type
    fields = [pa.field("key", array_type.key_type, nullable=False), pa.field("value", array_type.item_type)]
    entries = array.cast(pa.list_(pa.field("entries", pa.struct(fields), nullable=False)))
    items, offsets = lists.flatten(entries)
    pkeys = text_values.text_values(items.field(0), where)
    is_usable = ~lists.null_mask(pkeys.indices)
    places = np.flatnonzero(is_usable)
    pkeys, offsets = lists.keep(pkeys, offsets, is_usable)
    inner = key_values(items.field(1), INNER_SEPARATOR, where)
    return _nested(np.arange(len(array)), offsets, pkeys.dictionary, text_values.codes_of(pkeys), inner, places)


def _nested(
    map_of_row: Any, offsets: Offsets, pkeys: pa.Array, pkey_codes: Any, inner: KeyValues, inner_of_outer: Any
) -> NestedMaps:
    """Returns the maps whose outer entries hold these inner maps, an empty map behind them."""
    lengths = np.diff(inner.offsets)[inner_of_outer]
    places = lists.ranges(inner.offsets[:-1][inner_of_outer], lengths)
    bounds = lists.offsets_of(lengths)[offsets]
    return NestedMaps(
        map_of_row, np.append(bounds, bounds[-1]), pkeys, np.repeat(pkey_codes, lengths), inner, inner.codes[places]
    )
