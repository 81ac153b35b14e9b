"""Reads the values of an input column: as texts, as numbers, as several per row, as sequences.

All features share these rules on the text and the number of a value, and on missing values:
- a text stays as it is, "" is missing;
- an integer becomes its decimal digits. So does a float without a fraction, because an integer column with gaps often
  arrives as floats. Any other float becomes the shortest text that reads back as the same number. NaN and infinities are missing;
- a boolean becomes "true" or "false"; dates and decimals become the text that Arrow prints. So do times, in microseconds
  whatever the unit of the column;
- a text that spells a decimal number has this number; any other text is missing as a number.

Texts are always dictionary arrays, so that each rule runs once per distinct value. Numbers are float64 and NaN is missing.
Letters: R rows, n values of all rows.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from dssm_assets.core.arrays import ragged
from dssm_assets.core.arrays.ragged import IntArray, Mask, Offsets
from dssm_assets.core.errors import Fault, SchemaError

Numbers = npt.NDArray[np.float64]

_BEYOND_INT64 = float(2**63)
_DECIMAL = r"^[\t-\r ]*(?P<number>[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)[\t-\r ]*$"
_CAST = "cast the column before features are generated"


def text_values(array: pa.Array, where: str) -> pa.DictionaryArray:
    """Returns the text of each value of a column without lists; null where it is missing.

    Raises:
        SchemaError: values of the column's type have no text, such as structs.
    """
    if pat.is_nested(array.type):
        raise SchemaError(_no_text(array.type, where))
    if pat.is_null(array.type) or pat.is_string_view(array.type) or pat.is_large_string(array.type):
        array = array.cast(pa.string())
    encoded = array if pat.is_dictionary(array.type) else array.dictionary_encode()
    text, codes = _to_text(encoded.dictionary, where), encoded.indices.cast(pa.int32())
    is_missing: Mask = pc.fill_null(pc.equal(text, ""), True).to_numpy(zero_copy_only=False)
    if is_missing.any():
        positions = codes.fill_null(0).to_numpy(zero_copy_only=False)
        codes = ragged.mask_numbers(positions, ragged.null_mask(codes) | is_missing[positions])
        text = text.fill_null("")
    return pa.DictionaryArray.from_arrays(codes, text)


def _to_text(values: pa.Array, where: str) -> pa.Array:
    if pat.is_floating(values.type):
        return _float_to_text(values)
    if pat.is_timestamp(values.type):
        values = values.cast(pa.timestamp("us", values.type.tz), safe=False)
    try:
        return values.cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise SchemaError(_no_text(values.type, where)) from error


def _float_to_text(values: pa.Array) -> pa.Array:
    if pat.is_float16(values.type):
        values = values.cast(pa.float32())
    numbers = values.to_numpy(zero_copy_only=False)
    is_finite = np.isfinite(numbers)
    is_whole = is_finite & (np.trunc(numbers) == numbers) & (np.abs(numbers) < _BEYOND_INT64)
    digits = pa.array(np.where(is_whole, numbers, 0).astype(np.int64)).cast(pa.string())
    text = pc.if_else(pa.array(is_whole), digits, values.cast(pa.string()))
    return pc.if_else(pa.array(is_finite), text, pa.scalar(None, pa.string()))


def _no_text(arrow_type: pa.DataType, where: str) -> Fault:
    return Fault(where, "a column of texts, numbers, booleans or times", str(arrow_type), _CAST)


def dictionary_codes(texts: pa.DictionaryArray) -> IntArray:
    """Returns the position of each text in the dictionary. Texts must not be null."""
    return np.asarray(texts.indices, np.int64)


def fill_missing(texts: pa.DictionaryArray, default: str) -> pa.DictionaryArray:
    """Replaces missing texts by a default. An empty default leaves them missing."""
    if not default or not texts.indices.null_count:
        return texts
    dictionary = pa.concat_arrays([texts.dictionary, pa.array([default], pa.string())])
    return pa.DictionaryArray.from_arrays(texts.indices.fill_null(len(texts.dictionary)), dictionary)


def number_values(array: pa.Array, where: str) -> Numbers:
    """Returns the number of each value as float64 [R]; NaN where it is missing.

    Raises:
        SchemaError: values of the column's type have no number, such as dates or lists.
    """
    arrow_type = array.type
    if pat.is_null(arrow_type):
        return np.full(len(array), np.nan)
    if ragged.is_text(arrow_type):
        array = array.cast(pa.string()).dictionary_encode()
    if pat.is_dictionary(array.type):
        dictionary = array.dictionary
        numbers = _parse(dictionary.cast(pa.string())) if ragged.is_text(dictionary.type) else number_values(dictionary, where)
        codes = array.indices.cast(pa.int64()).fill_null(len(numbers))
        return np.asarray(np.append(numbers, np.nan)[np.asarray(codes)])
    if pat.is_boolean(arrow_type):
        array = array.cast(pa.int8())
    elif not (pat.is_integer(arrow_type) or pat.is_floating(arrow_type) or pat.is_decimal(arrow_type)):
        raise SchemaError(Fault(where, "numbers, booleans or text", str(arrow_type), _CAST))
    return _finite(array.cast(pa.float64(), safe=False))


@lru_cache(maxsize=4096)
def parse_number(text: str) -> float | None:
    """Returns the number that a text spells, or None."""
    number = float(_parse(pa.array([text], pa.string()))[0])
    return None if np.isnan(number) else number


def to_float32(numbers: Numbers, default: float | None) -> pa.Array:
    """Returns numbers as a float32 column. Missing numbers get the default; null if it is None.

    Negative zero becomes zero, so that equal numbers have the same bytes.
    """
    with np.errstate(over="ignore"):
        narrow = numbers.astype(np.float32) + np.float32(0)
    is_missing = ~np.isfinite(narrow)
    if default is None:
        return ragged.mask_numbers(narrow, is_missing)
    narrow[is_missing] = np.float32(default)
    return pa.array(narrow, pa.float32())


def _parse(texts: pa.Array) -> Numbers:
    return _finite(pc.struct_field(pc.extract_regex(texts, _DECIMAL), "number").cast(pa.float64()))


def _finite(numbers: pa.Array) -> Numbers:
    found: Numbers = np.array(pc.coalesce(numbers, np.nan), dtype=np.float64)
    found[~np.isfinite(found)] = np.nan
    return found


def split_texts(array: pa.Array, separator: str, where: str) -> tuple[pa.Array, IntArray, Offsets]:
    """Splits each text of a column without lists at a separator.

    A missing or empty text has no parts; a part between two separators may be "".

    Returns:
        The distinct parts of all texts; the number of each row's parts among them [n]; the offsets of the rows [R + 1].
    """
    texts = text_values(array, where)
    is_present = ~ragged.null_mask(texts.indices)
    texts, offsets = ragged.filter_values(texts, np.arange(len(array) + 1, dtype=np.int64), is_present)
    parts, part_offsets = ragged.flatten(pc.split_pattern(texts.dictionary, separator))
    codes = dictionary_codes(texts)
    if len(parts) == len(texts.dictionary):
        return parts, codes, offsets  # No text contains the separator.
    lengths = np.diff(part_offsets)[codes]
    return parts, ragged.ranges(part_offsets[codes], lengths), ragged.offsets_of(lengths)[offsets]


def element_texts(array: pa.Array, separator: str, where: str) -> tuple[pa.DictionaryArray, Offsets]:
    """Returns the text of every element [n] and the offsets of the rows [R + 1]. A missing element has no text.

    A column without lists holds elements joined by the separator; a missing or empty text holds none.
    """
    if ragged.is_list(array.type):
        flat, offsets = ragged.flatten(array)
        return text_values(flat, where), offsets
    parts, positions, offsets = split_texts(array, separator, where)
    is_empty = pc.equal(parts, "").to_numpy(zero_copy_only=False)
    indices = pa.array(positions, pa.int32(), mask=is_empty[positions])
    return pa.DictionaryArray.from_arrays(indices, parts), offsets


def multi_text_values(array: pa.Array, separator: str, where: str) -> tuple[pa.DictionaryArray, Offsets]:
    """Returns the present texts of a multi-valued column [n] and their offsets [R + 1]. See `element_texts`."""
    texts, offsets = element_texts(array, separator, where)
    return ragged.filter_values(texts, offsets, ~ragged.null_mask(texts.indices))


def number_vectors(array: pa.Array, separator: str, where: str) -> tuple[Numbers, Offsets]:
    """Returns the numbers of every row [n] and their offsets [R + 1]. A missing number keeps its position and becomes NaN.

    Each element of a list is one number. A text holds numbers joined by the separator; a missing or empty text holds none.
    Any other column holds one number per row, or none if the value is missing.

    Raises:
        SchemaError: the elements have no number, such as dates.
    """
    if ragged.is_list(array.type):
        flat, offsets = ragged.flatten(array)
        return number_values(flat, where), offsets
    parts, positions, offsets = split_texts(array, separator, where)
    return number_values(parts, where)[positions], offsets


def mask_of_first(offsets: Offsets, count: int | None) -> Mask:
    """Marks the first `count` values of each row, bool [n]; all values if `count` is 0 or None."""
    if not count:
        return np.ones(int(offsets[-1]), dtype=bool)
    return np.arange(int(offsets[-1])) - np.repeat(offsets[:-1], np.diff(offsets)) < count


def insert_default(values: npt.NDArray[Any], offsets: Offsets, default: Any) -> tuple[npt.NDArray[Any], Offsets]:
    """Gives each empty row the default as its only value. Returns values and offsets."""
    lengths = np.diff(offsets)
    return np.insert(values, offsets[:-1][lengths == 0], default), ragged.offsets_of(np.maximum(lengths, 1))


def fill_empty_rows(texts: pa.DictionaryArray, offsets: Offsets, default: str) -> tuple[pa.DictionaryArray, Offsets]:
    """Gives each empty row the default as its only text. An empty default changes nothing."""
    if not default or np.diff(offsets).all():
        return texts, offsets
    dictionary = pa.concat_arrays([texts.dictionary, pa.array([default], pa.string())])
    codes, offsets = insert_default(dictionary_codes(texts), offsets, len(dictionary) - 1)
    return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), dictionary), offsets


def finish_texts(texts: pa.DictionaryArray, offsets: Offsets, count: int | None, default: str) -> pa.Array:
    """Returns a category column: the first text of each row if `count` is 1, else lists of the first `count` texts (0 or None: all).

    A row without texts gets the default, unless the default is empty.
    """
    if count == 1:
        has_value = np.diff(offsets) > 0
        return fill_missing(texts.take(pa.array(offsets[:-1], mask=~has_value)), default)
    first = ragged.filter_values(texts, offsets, mask_of_first(offsets, count))
    return ragged.build_lists(*fill_empty_rows(*first, default))


def as_lists(array: pa.Array, delimiter: str, where: str) -> pa.Array:
    """Returns the column if it holds lists, else its texts split at the delimiter. An empty text becomes an empty list.

    Raises:
        SchemaError: the column holds neither lists nor text.
    """
    if ragged.is_list(array.type):
        return array
    if not (pat.is_dictionary(array.type) or ragged.is_text(array.type) or pat.is_null(array.type)):
        raise SchemaError(Fault(where, "lists or text", str(array.type), "write one list per user"))
    parts, positions, offsets = split_texts(array, delimiter, where)
    return ragged.build_lists(parts.take(pa.array(positions)), offsets, ragged.null_mask(array))


def keep_recent(offsets: Offsets, length: int, is_oldest_first: bool) -> tuple[IntArray, Offsets]:
    """Returns the positions of the `length` most recent elements of each row, and their offsets.

    Args:
        length: number of elements to keep; 0: all.
        is_oldest_first: whether a row ends with its most recent elements; if not, it begins with them.
    """
    lengths = np.diff(offsets)
    fewer = np.minimum(lengths, length) if length else lengths
    starts = offsets[1:] - fewer if is_oldest_first else offsets[:-1]
    return ragged.ranges(starts, fewer), ragged.offsets_of(fewer)
