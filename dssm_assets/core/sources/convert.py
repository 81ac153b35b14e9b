"""Converts single source columns to the types of canonical tables: ids, text, float64 values.

Does not belong here: timestamps (`event_time.py`) and whole tables (`normalise.py`).
"""

from __future__ import annotations

from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from dssm_assets.core.arrays.ragged import combine_chunks, is_text
from dssm_assets.core.errors import Fault, SchemaError

_EXACT_BELOW: Final = 2.0**53
"""From this number on, a float64 may stand for several whole numbers."""
COMMA_NUMBER: Final = r"^-?(?:\d+|\d{1,3}(?:\.\d{3})+)(?:,\d+)?$"
"""Matches numbers with a decimal comma, and points between thousands."""


NO_IDS: Final = ("NA", "N/A", "nan", "NaN", "null", "None")
"""Texts that stand for a missing id if rows without id are left out. Otherwise they are ordinary ids."""


def decode_column(values: pa.ChunkedArray | pa.Array) -> pa.Array:
    """Returns a column as one array in a plain type, for Arrow's kernels: dictionaries, large and view texts become plain."""
    column = combine_chunks(values)
    if pat.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pat.is_large_string(column.type) or pat.is_string_view(column.type):
        column = column.cast(pa.string())
    if pat.is_float16(column.type) or pat.is_binary_view(column.type):
        column = column.cast(pa.float32() if pat.is_float16(column.type) else pa.binary())
    return column


def check_text(column: pa.Array | pa.ChunkedArray, where: str) -> pa.Array | pa.ChunkedArray:
    """Returns a column unchanged. Raises a SchemaError if it has text that is not UTF-8."""
    if not pat.is_primitive(column.type):
        try:
            column.validate(full=True)
        except pa.ArrowInvalid as error:
            raise SchemaError(Fault(where, "text in UTF-8", str(error), "write the source's text in UTF-8")) from error
    return column


def to_ids(values: pa.ChunkedArray | pa.Array, where: str) -> pa.Array:
    """Returns ids as int64 (from integers of any width) or string (from text); "" and NaN become null.

    Whole numbers that a dataframe turned into floats or decimals become int64 again. Refused: 1.5, 2.0**53, bytes, booleans.

    Raises:
        SchemaError: the column cannot be ids.
    """
    column = check_text(decode_column(values), where)
    kind = column.type
    if pat.is_null(kind):
        return column.cast(pa.string())
    if is_text(kind):
        return pc.if_else(pc.equal(column, ""), None, column)
    if pat.is_integer(kind) or pat.is_floating(kind) or pat.is_decimal(kind):
        return whole_numbers(column, where, "store ids as integers or text")
    raise SchemaError(Fault(where, "integers or text", str(kind), "cast the ids to integers or text in the source"))


def whole_numbers(column: pa.Array, where: str, remedy: str) -> pa.Array:
    """Returns integers, whole floats or whole decimals as int64; null and NaN become null.

    Raises:
        SchemaError: a value is not whole, does not fit int64, or is a float too large to be exact.
    """
    if pat.is_floating(column.type):
        wide = column.cast(pa.float64())
        wide = pc.if_else(pc.is_nan(wide), None, wide)
        is_bad = pc.or_(pc.not_equal(pc.floor(wide), wide), pc.greater_equal(pc.abs(wide), _EXACT_BELOW))
        bad = wide.filter(is_bad)
        if len(bad):
            got = f"{len(bad)} values of type {column.type} that are not exact whole numbers, such as {bad[0].as_py()}"
            raise SchemaError(Fault(where, "whole numbers", got, remedy))
        return wide.cast(pa.int64())
    try:
        return column.cast(pa.int64())
    except pa.ArrowInvalid as error:
        raise SchemaError(Fault(where, "whole numbers that fit signed 64 bits", str(error), remedy)) from error


def to_text(values: pa.ChunkedArray | pa.Array, where: str) -> pa.Array:
    """Returns a column as text; nulls stay. Whole floats lose their ".0": 3.0 becomes "3".

    Raises:
        SchemaError: the column has lists, structs or bytes.
    """
    column = check_text(decode_column(values), where)
    if pat.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), None, column)
    if pat.is_nested(column.type) or pat.is_binary(column.type) or pat.is_large_binary(column.type):
        raise SchemaError(Fault(where, "text or a plain value", str(column.type), "write the column as text in the source"))
    return column.cast(pa.string())


def with_decimal_point(text: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Replaces the decimal comma in texts of numbers by a point: "1.234,50" becomes "1234.50"."""
    return pc.replace_substring(pc.replace_substring(text, ".", ""), ",", ".")


def to_values(values: pa.ChunkedArray | pa.Array, where: str, decimal_mark: str | None = None) -> pa.Array:
    """Returns numbers, or texts of numbers, as float64; null, NaN and "" become null.

    Raises:
        SchemaError: a value is not a number, or is infinite.
    """
    column = check_text(decode_column(values), where)
    if is_text(column.type):
        column = pc.utf8_trim_whitespace(column)
        column = pc.if_else(pc.equal(column, ""), None, column)
        if decimal_mark is not None:
            is_other = pc.invert(pc.match_substring_regex(column, COMMA_NUMBER))
            if others := column.filter(is_other).drop_null().slice(0, 3).to_pylist():
                expected, remedy = "numbers with a comma before their fractions", "fix the source, or correct decimal_mark"
                raise SchemaError(Fault(where, expected, f"others, such as {others}", remedy))
            column = with_decimal_point(column)
    if pat.is_decimal(column.type):
        column = column.cast(pa.string())  # via text, because Arrow's own conversion is off in the last digit
    try:
        numbers = column.cast(pa.float64(), safe=False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise SchemaError(Fault(where, "numbers", str(error), "fix the source, or remove it from value_columns")) from error
    infinite = pc.sum(pc.is_inf(numbers)).as_py()
    if infinite:
        raise SchemaError(Fault(where, "finite numbers", f"{infinite} infinite values", "fix those rows in the source"))
    return pc.if_else(pc.is_nan(numbers), None, numbers)
