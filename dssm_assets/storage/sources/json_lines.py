"""Reads JSON lines, or a file with one list of objects, as columns. DuckDB reads all files with one type per key.

A missing key is null. Texts stay texts, also times; `core/sources/event_time.py` parses these. Whole numbers are int64. If a
column also has fractions, it is float64. Numbers mixed with texts or booleans become text, as in csv. A value inside an object
becomes a separate column: `{"user": {"id": 1}}` has the column `user.id`. Lists stay lists.

Belongs here: lines to columns. Does not belong here: opening files (`source_files.py`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from pathlib import Path
from typing import Any, Final

import duckdb
import pyarrow as pa

from dssm_assets.core.errors import Fault, SchemaError
from dssm_assets.storage.files import check_names

BLOCK_ROWS: Final = 65_536
MOST_COLUMNS: Final = 10_000

Kind = Any
"""Type of a key, from DuckDB's json_structure: the name of a plain type, a dictionary of an object's keys, or a list with one type."""
_NOTHING: Final = ("NULL", "JSON")
"""The types of null and of an object without keys."""
_TYPES: Final = {"BIGINT": "BIGINT", "UBIGINT": "BIGINT", "DOUBLE": "DOUBLE", "BOOLEAN": "BOOLEAN"}
_CONNECT: Final = {"enable_external_file_cache": False}


@dataclass(frozen=True)
class JsonColumns:
    """The columns of JSON files, with their schema.

    Attributes:
        keys: outer key -> its type in SQL.
        paths: column -> the SQL expression that reads it.
    """

    keys: dict[str, str]
    paths: dict[str, str]
    schema: pa.Schema


def find_kinds(path: Path, where: str) -> Kind:
    """Returns key -> type for the objects of a local file. Any other value counts as an object without keys.

    Raises:
        SchemaError: no type fits all values of a key, such as numbers and lists.
        duckdb.Error: the file is not JSON.
    """
    query = "SELECT json_structure(json) AS kind FROM read_json_objects($path) GROUP BY 1 ORDER BY length(kind) DESC, kind"
    with duckdb.connect(config=_CONNECT) as db:
        kinds = [json.loads(kind) for (kind,) in db.execute(query, {"path": str(path)}).fetchall()]
    return reduce(partial(_merge, where), [kind for kind in kinds if isinstance(kind, dict)], {})


def merge_kinds(files: Sequence[Kind], where: str) -> JsonColumns:
    """Merges the keys of several files into columns.

    Raises:
        SchemaError: two columns have the same name, or no type fits all values of a key.
    """
    kinds: dict[str, Kind] = reduce(partial(_merge, where), files, {})
    keys = {name: _name_kind(kind) for name, kind in kinds.items()}
    columns = [column for name in keys for column in _flatten(name, _quote(name), kinds[name])]
    check_names([name for name, _ in columns], where)
    if len(columns) > MOST_COLUMNS:
        expected, got = f"at most {MOST_COLUMNS:,} columns to be read", f"{len(columns):,}"
        raise SchemaError(Fault(where, expected, got, "write the needed columns to another table"))
    if not columns:
        return JsonColumns({}, {}, pa.schema([]))
    chosen = ", ".join(f"{path} AS {_quote(name)}" for name, path in columns)
    nothing = ", ".join(f"NULL::{kind} AS {_quote(name)}" for name, kind in keys.items())
    with duckdb.connect() as db:
        schema = db.sql(f"SELECT {chosen} FROM (SELECT {nothing})").to_arrow_table().schema
    return JsonColumns(keys, dict(columns), schema)


def read_json_blocks(path: Path, columns: JsonColumns, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Yields the objects of a local file as some columns, in order."""
    chosen = ", ".join(f"{columns.paths[name]} AS {_quote(name)}" for name in names)
    query = f"SELECT {chosen} FROM read_json($path, columns = $keys)"
    with duckdb.connect(config=_CONNECT) as db:
        yield from db.sql(query, params={"path": str(path), "keys": columns.keys}).to_arrow_reader(BLOCK_ROWS)


def _merge(where: str, left: Kind, right: Kind) -> Kind:
    if left == right or left in _NOTHING or right in _NOTHING:
        return right if left in _NOTHING else left
    if isinstance(left, dict) and isinstance(right, dict):
        return {name: _merge(where, left.get(name, "NULL"), right.get(name, "NULL")) for name in {**left, **right}}
    if isinstance(left, list) and isinstance(right, list):
        return [_merge(where, left[0], right[0])]
    if not isinstance(left, str) or not isinstance(right, str):
        got = f"{json.dumps(left)} and {json.dumps(right)}"
        raise SchemaError(Fault(where, "one type per key", got, "write the file again with one type"))
    numbers = {_TYPES.get(left), _TYPES.get(right)}
    return "BIGINT" if numbers == {"BIGINT"} else "DOUBLE" if numbers == {"BIGINT", "DOUBLE"} else "VARCHAR"


def _name_kind(kind: Kind) -> str:
    if isinstance(kind, dict):
        return f"STRUCT({', '.join(f'{_quote(name)} {_name_kind(inner)}' for name, inner in kind.items())})"
    return f"{_name_kind(kind[0])}[]" if isinstance(kind, list) else _TYPES.get(kind, "VARCHAR")


def _flatten(name: str, path: str, kind: Kind) -> Iterator[tuple[str, str]]:
    """Yields column and SQL expression of a key. If its values are objects, does so for each key in them."""
    if not isinstance(kind, dict):
        yield name, path
        return
    for inner, inner_kind in kind.items():
        yield from _flatten(f"{name}.{inner}", f"{path}.{_quote(inner)}", inner_kind)


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
