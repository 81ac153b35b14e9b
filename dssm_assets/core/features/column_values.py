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

from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from dssm_assets.core.arrays import ragged
from dssm_assets.core.arrays.ragged import Mask, Offsets
from dssm_assets.core.errors import Fault, SchemaError

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
        is_missing = ragged.null_mask(text)
        positions = codes.fill_null(0).to_numpy(zero_copy_only=False)
        nulls = ragged.null_mask(codes)
        codes = pa.array(positions, pa.int32(), mask=nulls | (is_missing[positions] if len(is_missing) else nulls))
        text = text.fill_null("")
    return pa.DictionaryArray.from_arrays(codes, text)


def multi_text_values(array: pa.Array, separator: str, where: str) -> tuple[pa.DictionaryArray, Offsets]:
    """Returns the texts of a multi-valued column and their row bounds; missing ones are left out.

    An element of a list is one value. A column without lists holds values joined by the separator.
    """
    if ragged.is_list(array.type):
        flat, offsets = ragged.flatten(array)
        texts = text_values(flat, where)
        return ragged.keep(texts, offsets, ~ragged.null_mask(texts.indices))
    texts = text_values(array, where)
    present = ~ragged.null_mask(texts.indices)
    texts, offsets = ragged.keep(texts, np.arange(len(array) + 1, dtype=np.int64), present)
    parts = pc.split_pattern(texts.dictionary, separator)
    if len(parts.flatten()) == len(parts):
        return texts, offsets
    values, part_offsets = ragged.flatten(parts)
    codes = texts.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    lengths = np.diff(part_offsets)[codes]
    taken = ragged.ranges(part_offsets[codes], lengths)
    spread = pa.DictionaryArray.from_arrays(pa.array(taken, pa.int32()), values)
    is_empty = pc.equal(values, "").to_numpy(zero_copy_only=False)
    return ragged.keep(spread, ragged.offsets_of(lengths)[offsets], ~is_empty[taken])


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


Numbers = np.ndarray[Any, np.dtype[np.float64]]

_DECIMAL = r"^[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?$"


def number_values(array: pa.Array, where: str) -> Numbers:
    """Returns the number of each value as float64; NaN where it is missing.

    Raises:
        SchemaError: if the column's type has no number, such as a date or a list.
    """
    arrow_type = array.type
    if pat.is_null(arrow_type):
        return np.full(len(array), np.nan)
    if _is_text(arrow_type):
        array = array.cast(pa.string()).dictionary_encode()
    if pat.is_dictionary(array.type):
        dictionary = array.dictionary
        numbers = _parse(dictionary.cast(pa.string())) if _is_text(dictionary.type) else number_values(dictionary, where)
        codes = array.indices.cast(pa.int64()).fill_null(len(numbers))
        spread: Numbers = np.append(numbers, np.nan)[codes.to_numpy(zero_copy_only=False)]
        return spread
    if pat.is_boolean(arrow_type):
        array = array.cast(pa.int8())
    elif not (pat.is_integer(arrow_type) or pat.is_floating(arrow_type) or pat.is_decimal(arrow_type)):
        remedy = "cast the column before features are generated"
        raise SchemaError(Fault(where, "numbers, booleans or text", str(arrow_type), remedy))
    numbers = np.array(array.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False), dtype=np.float64)
    numbers[~np.isfinite(numbers)] = np.nan
    return numbers


def to_float32(numbers: Numbers, default: float | None) -> pa.Array:
    """Returns the numbers as a float32 column, the default (None: null) in place of missing ones.

    Negative zero becomes zero, so that equal numbers have one representation.
    """
    with np.errstate(over="ignore"):
        narrow = numbers.astype(np.float32) + np.float32(0)
    is_missing = ~np.isfinite(narrow)
    if default is None:
        return pa.array(narrow, pa.float32(), mask=is_missing)
    narrow[is_missing] = np.float32(default)
    return pa.array(narrow, pa.float32())


@lru_cache(maxsize=4096)
def parse_number(text: str) -> float | None:
    """Returns the number that one text is, or None where it is missing."""
    number = float(_parse(pa.array([text], pa.string()))[0])
    return None if np.isnan(number) else number


def _is_text(arrow_type: pa.DataType) -> bool:
    return bool(pat.is_string(arrow_type) or pat.is_large_string(arrow_type) or pat.is_string_view(arrow_type))


def _parse(texts: pa.Array) -> Numbers:
    trimmed = pc.ascii_trim_whitespace(texts)
    is_number = pc.fill_null(pc.match_substring_regex(trimmed, _DECIMAL), False)
    numbers = pc.if_else(is_number, trimmed, pa.scalar(None, pa.string())).cast(pa.float64())
    return number_values(numbers, "text")


def number_vectors(array: pa.Array, separator: str, where: str) -> tuple[Numbers, Offsets]:
    """Returns the numbers of every row and their row bounds; a place without a number keeps its place as NaN.

    An element of a list is one number. A text holds numbers joined by the separator; a missing or empty one holds
    none. Any other column holds one number per row, none where it is missing.

    Raises:
        SchemaError: if the elements have no number, such as dates.
    """
    if ragged.is_list(array.type):
        flat, offsets = ragged.flatten(array)
        return number_values(flat, where), offsets
    texts = text_values(array, where)
    present = ~ragged.null_mask(texts.indices)
    texts, offsets = ragged.keep(texts, np.arange(len(array) + 1, dtype=np.int64), present)
    parts, part_offsets = ragged.flatten(pc.split_pattern(texts.dictionary, separator))
    numbers = number_values(parts, where)
    codes = codes_of(texts)
    lengths = np.diff(part_offsets)[codes]
    return numbers[ragged.ranges(part_offsets[codes], lengths)], ragged.offsets_of(lengths)[offsets]


def first_mask(offsets: Offsets, count: int | None) -> Mask:
    """Returns which elements are among the first `count` of their row; all of them for 0 or None."""
    if not count:
        return np.ones(int(offsets[-1]), dtype=bool)
    mask: Mask = np.arange(int(offsets[-1])) - np.repeat(offsets[:-1], np.diff(offsets)) < count
    return mask


def first(texts: pa.Array, offsets: Offsets, count: int | None) -> tuple[pa.Array, Offsets]:
    """Returns the first `count` texts of each row and their bounds; everything for 0 or None."""
    return ragged.keep(texts, offsets, first_mask(offsets, count)) if count else (texts, offsets)


def with_default(texts: pa.DictionaryArray, offsets: Offsets, default: str) -> tuple[pa.DictionaryArray, Offsets]:
    """Returns the texts with the default as the one value of each empty row; an empty default leaves them empty."""
    lengths = np.diff(offsets)
    if not default or lengths.all():
        return texts, offsets
    dictionary = pa.concat_arrays([texts.dictionary, pa.array([default], pa.string())])
    codes = np.insert(codes_of(texts), offsets[:-1][lengths == 0], len(dictionary) - 1)
    filled = pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), dictionary)
    return filled, ragged.offsets_of(np.maximum(lengths, 1))


def first_or_default(texts: pa.DictionaryArray, offsets: Offsets, default: str) -> pa.DictionaryArray:
    """Returns the first text of each row as one category, the default (or null for "") where there is none."""
    has_value = np.diff(offsets) > 0
    codes = np.append(codes_of(texts), 0)[np.where(has_value, offsets[:-1], len(texts))]
    alone = pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32(), mask=~has_value), _never_empty(texts.dictionary))
    return fill_text(alone, default)


def _never_empty(dictionary: pa.Array) -> pa.Array:
    return dictionary if len(dictionary) else pa.array([""], pa.string())


def as_lists(array: pa.Array, delimiter: str, where: str) -> pa.Array:
    """Returns a column of lists: itself, or its texts cut at the delimiter. An empty text has no elements.

    Raises:
        SchemaError: if the column holds neither.
    """
    if ragged.is_list(array.type):
        return array
    is_text = pa.types.is_string(array.type) or pa.types.is_large_string(array.type) or pa.types.is_string_view(array.type)
    if pa.types.is_dictionary(array.type) or is_text or pa.types.is_null(array.type):
        texts = text_values(array, where)
        parts = pc.split_pattern(texts.dictionary, delimiter)
        is_null = ragged.null_mask(array)
        is_empty = ragged.null_mask(texts.indices)
        flat, offsets = ragged.flatten(parts)
        codes = texts.indices.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
        lengths = np.where(is_empty, 0, np.append(np.diff(offsets), 0)[codes])
        starts = np.append(offsets, 0)[codes]
        return ragged.build(flat.take(pa.array(ragged.ranges(starts, lengths))), ragged.offsets_of(lengths), is_null)
    raise SchemaError(Fault(where, "lists or text", str(array.type), "write one list per user"))


def kept(offsets: Offsets, length: int, is_oldest_first: bool) -> tuple[Any, Offsets]:
    """Returns the positions of each row's `length` most recent elements (all for 0) and their row bounds."""
    lengths = np.diff(offsets)
    if not length or not (lengths > length).any():
        return None, offsets
    fewer = np.minimum(lengths, length)
    starts = offsets[1:] - fewer if is_oldest_first else offsets[:-1]
    return ragged.ranges(starts, fewer), ragged.offsets_of(fewer)
