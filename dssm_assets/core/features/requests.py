"""One request as a table of one row, and one row of a result as plain values.

Belongs here: the types of Python values. Does not belong here: what features make of them (`generator.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from dssm_assets.core.errors import Fault, SchemaError

_INT64 = range(-(2**63), 2**63)


def table_of(request: Mapping[str, Any], columns: Iterable[str]) -> pa.Table:
    """Returns a table of one row with the columns; a column that the request lacks is missing (null).

    Args:
        request: value by input name: text, number, boolean, None, a list (or tuple, array) of them, or a mapping.
        columns: names of the inputs that are needed.

    Raises:
        SchemaError: naming every input whose value has no column type, such as an object.
    """
    faults, arrays = [], {}
    for name in columns:
        try:
            arrays[name] = pa.array([_plain(request.get(name))], _type(request.get(name)))
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError, UnicodeEncodeError) as error:
            got = f"{type(request.get(name)).__name__} {request.get(name)!r}"[:120]
            remedy = f"give plain values of one type ({str(error)[:120]})"
            faults.append(Fault(f"request, input {name}", "text, a number, a list or a mapping of them", got, remedy))
    if faults:
        raise SchemaError(faults)
    return pa.table(arrays) if arrays else pa.table({"rows": pa.nulls(1)}).select([])


def values_of(table: pa.Table) -> dict[str, Any]:
    """Returns the first row of a result: plain numbers, texts and lists."""
    return {name: column[0].as_py() for name, column in zip(table.column_names, table.columns, strict=True)}


def _plain(value: Any) -> Any:
    """Returns a value that Arrow takes: integers that int64 cannot hold as their digits, mappings as pairs."""
    if isinstance(value, Mapping):
        return [(str(key) if isinstance(key, bool) else _plain(key), _plain(item)) for key, item in value.items()]
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, int) and not isinstance(value, bool) and value not in _INT64:
        return str(value)
    return value


def _type(value: Any) -> pa.DataType | None:
    if not isinstance(value, Mapping):
        return None
    keys = pa.array([_plain(key) for key in value], None).type if value else pa.string()
    items = [_plain(item) for item in value.values()]
    inner = _type(next(iter(value.values()))) if value else pa.float64()
    return pa.map_(keys if not pa.types.is_null(keys) else pa.string(), inner or pa.array(items).type)
