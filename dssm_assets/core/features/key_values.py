"""Key-value inputs: maps, lists of "key:value" texts, and such texts joined by a separator.

Belongs here: the one reading of such a column, for all operators that take one. Does not belong here: what an
operator does with the pairs (`operators/`).

The last delimiter of an entry divides it, because values are mostly numbers while keys are free text. An entry of a
list or text without the delimiter is a key without a value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from dssm_assets.core.features import lists, number_values, text_values
from dssm_assets.core.features.lists import Offsets
from dssm_assets.core.features.number_values import Numbers


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
    entries, offsets = text_values.multi_text_values(array, separator, where)
    keys, values = divided(entries.dictionary, delimiter)
    keys = pc.if_else(pc.is_null(keys), entries.dictionary, keys)
    has_key = pc.not_equal(keys, "").to_numpy(zero_copy_only=False)
    codes = text_values.codes_of(entries)
    codes, offsets = _kept(codes, offsets, has_key[codes])
    return KeyValues(codes, offsets, keys, values, number_values.number_values(values, where))


def divided(entries: pa.Array, delimiter: str = ":") -> tuple[pa.Array, pa.Array]:
    """Returns what stands before and after the last delimiter of each text; both null where there is none."""
    parts = pc.split_pattern(entries, delimiter, max_splits=1, reverse=True)
    is_pair = pc.equal(pc.list_value_length(parts), 2)
    at_first, offsets = lists.flatten(parts)
    none = pa.scalar(None, pa.string())
    first = pa.array(offsets[:-1])
    second = pa.array(np.maximum(offsets[1:] - 1, 0))
    return pc.if_else(is_pair, at_first.take(first), none), pc.if_else(is_pair, at_first.take(second), none)


def _of_map(array: pa.Array, where: str) -> KeyValues:
    lengths = pc.fill_null(pc.list_value_length(array.cast(_as_list(array.type))), 0).to_numpy(zero_copy_only=False)
    items = array.cast(_as_list(array.type)).flatten()
    keys = text_values.text_values(items.field(0), where)
    offsets = lists.offsets_of(lengths)
    kept = ~lists.null_mask(keys.indices)
    items = items.filter(pa.array(kept))
    texts = text_values.text_values(items.field(1), where)
    codes, offsets = _kept(np.arange(len(kept)), offsets, kept)
    numbers = number_values.number_values(items.field(1), where)
    key_texts = keys.filter(pa.array(kept)).cast(pa.string())
    return KeyValues(np.arange(len(codes)), offsets, key_texts, texts.cast(pa.string()), numbers)


def _as_list(map_type: pa.MapType) -> pa.DataType:
    fields = [pa.field("key", map_type.key_type, nullable=False), pa.field("value", map_type.item_type)]
    return pa.list_(pa.field("entries", pa.struct(fields), nullable=False))


def _kept(codes: Any, offsets: Offsets, mask: Any) -> tuple[Any, Offsets]:
    kept_before = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(mask, dtype=np.int64)])
    return codes[mask], kept_before[offsets]
