"""What text an input value is: the text that is hashed, split and looked up.

Belongs here: the one definition of the text of an integer, a float, a boolean; splitting of multi-values. Does not
belong here: hashing (`hashing.py`), numbers (`number_values.py`) and key-value entries (`key_values.py`).

Texts are always dictionary arrays, so that each rule runs once per distinct value:
- text is itself, "" is missing;
- an integer is its decimal digits; a float without a fraction is too (an integer column with gaps often arrives as
  floats), any other float is the shortest text that reads back as the same number; NaN and infinities are missing;
- a boolean is "true" or "false"; dates and decimals are what Arrow prints, times too, in microseconds whatever the
  unit of the column.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from dssm_assets.core.errors import Fault, SchemaError
from dssm_assets.core.features import lists
from dssm_assets.core.features.lists import Offsets

_BEYOND_INT64 = float(2**63)


def text_values(array: pa.Array, where: str) -> pa.DictionaryArray:
    """Returns the text of each value of a column without lists; null where it is missing.

    Raises:
        SchemaError: if the column's type has no text, such as a struct.
    """
    if pat.is_null(array.type):
        array = array.cast(pa.string())
    encoded = array if pat.is_dictionary(array.type) else _encode(array, where)
    text = _text(encoded.dictionary, where)
    text = pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text)
    codes = encoded.indices.cast(pa.int32())
    if text.null_count:
        is_missing = lists.null_mask(text)
        positions = codes.fill_null(0).to_numpy(zero_copy_only=False)
        nulls = lists.null_mask(codes)
        codes = pa.array(positions, pa.int32(), mask=nulls | (is_missing[positions] if len(is_missing) else nulls))
        text = text.fill_null("")
    return pa.DictionaryArray.from_arrays(codes, text)


def multi_text_values(array: pa.Array, separator: str, where: str) -> tuple[pa.DictionaryArray, Offsets]:
    """Returns the texts of a multi-valued column and their row bounds; missing ones are left out.

    An element of a list is one value. A column without lists holds values joined by the separator.
    """
    if lists.is_list(array.type):
        flat, offsets = lists.flatten(array)
        texts = text_values(flat, where)
        return lists.keep(texts, offsets, ~lists.null_mask(texts.indices))
    texts = text_values(array, where)
    present = ~lists.null_mask(texts.indices)
    texts, offsets = lists.keep(texts, np.arange(len(array) + 1, dtype=np.int64), present)
    parts = pc.split_pattern(texts.dictionary, separator)
    if len(parts.flatten()) == len(parts):
        return texts, offsets
    values, part_offsets = lists.flatten(parts)
    codes = texts.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    lengths = np.diff(part_offsets)[codes]
    taken = lists.ranges(part_offsets[codes], lengths)
    spread = pa.DictionaryArray.from_arrays(pa.array(taken, pa.int32()), values)
    is_empty = pc.equal(values, "").to_numpy(zero_copy_only=False)
    return lists.keep(spread, lists.offsets_of(lengths)[offsets], ~is_empty[taken])


def fill_text(texts: pa.DictionaryArray, default: str) -> pa.DictionaryArray:
    """Returns the texts with a default in place of missing ones; an empty default leaves them missing."""
    if not default or not texts.indices.null_count:
        return texts
    dictionary = pa.concat_arrays([texts.dictionary, pa.array([default], pa.string())])
    return pa.DictionaryArray.from_arrays(texts.indices.fill_null(len(texts.dictionary)), dictionary)


def codes_of(texts: pa.DictionaryArray) -> Any:
    """Returns the dictionary position of each text; the texts must not be null."""
    return texts.indices.to_numpy(zero_copy_only=False).astype(np.int64)


def _encode(array: pa.Array, where: str) -> pa.DictionaryArray:
    if pat.is_nested(array.type):
        raise SchemaError(_unreadable(array.type, where))
    if pat.is_string_view(array.type) or pat.is_large_string(array.type):
        array = array.cast(pa.string())
    return array.dictionary_encode()


def _text(values: pa.Array, where: str) -> pa.Array:
    if pat.is_floating(values.type):
        return _float_text(values)
    if pat.is_timestamp(values.type):
        values = values.cast(pa.timestamp("us", values.type.tz), safe=False)
    try:
        return values.cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise SchemaError(_unreadable(values.type, where)) from error


def _unreadable(arrow_type: pa.DataType, where: str) -> Fault:
    return Fault(where, "a column whose values have a text", str(arrow_type), "cast the column before features are generated")


def _float_text(values: pa.Array) -> pa.Array:
    if pat.is_float16(values.type):
        values = values.cast(pa.float32())
    numbers = values.to_numpy(zero_copy_only=False)
    is_finite = np.isfinite(numbers)
    is_whole = is_finite & (np.trunc(numbers) == numbers) & (np.abs(numbers) < _BEYOND_INT64)
    digits = pa.array(np.where(is_whole, numbers, 0).astype(np.int64)).cast(pa.string())
    text = pc.if_else(pa.array(is_whole), digits, values.cast(pa.string()))
    return pc.if_else(pa.array(is_finite), text, pa.scalar(None, pa.string()))
