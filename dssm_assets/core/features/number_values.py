"""What number an input value is.

Belongs here: the one definition of the number of a text, an integer, a boolean; defaults and the cast to float32.
Does not belong here: normalizers (`normalizers.py`).

Missing is NaN inside this package's float arrays and null in its tables. Infinities are missing too, and so is a
number that float32 cannot hold. A text is a number if, without the spaces around it, it is a decimal number with an
optional exponent; every other text (also "nan", "inf", "1,000", "0x10") is missing.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from dssm_assets.core.errors import Fault, SchemaError

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
