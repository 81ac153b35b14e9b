"""Turns requests into rows of a table, and the first row of a result into plain Python values.

A request must give the same features as the same row of a table. Two kinds of numbers need care:
- a float32 or float16 becomes the decimal number that it prints as, because JSON writes this number;
- if a list or mapping has an integer that does not fit int64, all of its integers become text, because a column has one type.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core.errors import Fault, SchemaError

_INT64 = range(-(2**63), 2**63)
_BEYOND_INT64 = float(2**63)
_PLAIN_TYPES = frozenset({str, int, float, bool, type(None)})
_NO_VALUES = pa.list_(pa.null())
_NARROW = (np.dtype(np.float32), np.dtype(np.float16))


def request_rows(requests: Sequence[Mapping[str, Any]], columns: Iterable[str]) -> pa.Table:
    """Returns a table with one row per request and the given columns. A missing value is null.

    Args:
        requests: input name -> text, number, boolean, None, a list, tuple or array, or a mapping.

    Raises:
        SchemaError: an input has values of several types, or of a type that no column has, such as an object. All are named.
    """
    faults, arrays = [], {}
    for name in columns:
        values = [request.get(name) for request in requests]
        text_type = _find_text_type(values) if len(values) > 1 else None
        parts = []
        for value in [values] if text_type else values:
            try:
                parts.append(pa.array(value, text_type) if text_type else _one_row(value))
            except (pa.ArrowException, OverflowError, UnicodeEncodeError) as error:
                got = f"{type(value).__name__} {value!r}"[:120]
                remedy = f"give plain values of one type ({str(error)[:120]})"
                faults.append(Fault(f"request, input {name}", "text, a number, or a list or mapping", got, remedy))
        joined = _join(parts)
        if joined is not None:
            arrays[name] = joined
        elif parts:
            got = " and ".join(dict.fromkeys(str(part.type) for part in parts))[:120]
            faults.append(Fault(f"requests, input {name}", "values of one type", got, "encode such requests one by one"))
    SchemaError.raise_if(faults)
    return pa.table(arrays) if arrays else pa.table({"rows": pa.nulls(len(requests))}).select([])


def _one_row(value: Any) -> pa.Array:
    plain = _plain(value)
    plain = _with_digits(plain) if _is_beyond_int64(plain) else plain
    return pa.array([plain], _type(plain))


def _find_text_type(values: Sequence[Any]) -> pa.DataType | None:
    """Returns the column type of texts or of lists of texts. None: other values."""
    if {type(value) for value in values} <= {str, type(None)}:
        return pa.string()
    lists = [value for value in values if value is not None]
    if all(type(one) is list and {type(entry) for entry in one} <= {str, type(None)} for one in lists):
        return pa.list_(pa.string())
    return None


def _join(parts: Sequence[pa.Array]) -> pa.Array | None:
    """Joins arrays. A null fits any type, an empty list any list type. None: there are no arrays, or their types differ."""
    types = list(dict.fromkeys(part.type for part in parts))
    if len(types) <= 1:
        return pa.concat_arrays(parts) if parts else None
    with_values = [one for one in types if not (pa.types.is_null(one) or one == _NO_VALUES)]
    wanted = (with_values or sorted(types, key=pa.types.is_null))[0]
    if len(with_values) > 1 or (_NO_VALUES in types and not pa.types.is_list(wanted)):
        return None
    # Built from its parts, because Arrow cannot cast lists of nulls.
    return pa.concat_arrays([part if part.type == wanted else pa.array(part.to_pylist(), wanted) for part in parts])


def first_row(table: pa.Table) -> dict[str, Any]:
    """Returns the first row of a result as plain numbers, texts and lists."""
    return {name: column[0].as_py() for name, column in zip(table.column_names, table.columns, strict=True)}


def decimal_numbers(values: pa.Array) -> pa.Array:
    """Converts float32 or float16 numbers to the float64 of their printed decimal: 0.1, not 0.10000000149011612.

    Whole numbers stay exact, as in `column_values.text_values`: the shortest decimal of 60734968 is another number.
    """
    narrow = values.cast(pa.float32())
    exact, shortest = narrow.cast(pa.float64()), narrow.cast(pa.string()).cast(pa.float64())
    is_whole = pc.and_(pc.equal(pc.trunc(exact), exact), pc.less(pc.abs(exact), _BEYOND_INT64))
    return pc.if_else(is_whole, exact, shortest)


class _Pairs(list[tuple[Any, Any]]):
    """The entries of a mapping in the form that Arrow accepts."""


def _plain(value: Any) -> Any:
    if type(value) in _PLAIN_TYPES:  # most values; asking first whether they are mappings would take longer than all else here
        return value
    if isinstance(value, Mapping):
        return _Pairs((str(key) if isinstance(key, bool) else _plain(key), _plain(item)) for key, item in value.items())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _decimals(value) if getattr(value, "dtype", None) in _NARROW else _plain(value.tolist())
    return value


def _decimals(value: Any) -> Any:
    numbers = np.asarray(value)
    return decimal_numbers(pa.array(numbers.ravel())).to_numpy().reshape(numbers.shape).tolist()


def _is_beyond_int64(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(map(_is_beyond_int64, value))
    return isinstance(value, int) and value not in _INT64


def _with_digits(value: Any) -> Any:
    if isinstance(value, _Pairs):
        return _Pairs((_with_digits(key), _with_digits(item)) for key, item in value)
    if isinstance(value, list):
        return [_with_digits(item) for item in value]
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _type(value: Any) -> pa.DataType | None:
    """Returns the column type of a mapping. None: Arrow infers the type of other values."""
    if not isinstance(value, _Pairs):
        return None
    keys = pa.array([key for key, _ in value]).type if value else pa.string()
    items = [item for _, item in value]
    inner = _type(items[0]) if items else pa.float64()
    return pa.map_(keys if not pa.types.is_null(keys) else pa.string(), inner or pa.array(items).type)
