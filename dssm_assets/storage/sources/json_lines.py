"""JSON lines: one object per line, read in blocks of whole lines with one schema for the whole file.

A key that a line lacks is null. Texts stay texts: a timestamp in a text is read by `core/sources/event_time.py`. Whole numbers are
int64; a column that also has fractions is float64. What is in an object becomes a column of its own: `{"user": {"id": 1}}` has the
column `user.id`. Lists stay lists.

Belongs here: lines to columns. Does not belong here: opening files (`source_files.py`).
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj
import pyarrow.types as pat

from dssm_assets.core.errors import Fault, SchemaError

BLOCK_BYTES: Final = 16 * 2**20


def find_schema(handle: Any, where: str) -> pa.Schema:
    """Returns the columns of all lines of an open file, which is read to its end.

    Raises:
        SchemaError: a column has types that no type can hold, such as numbers and texts.
        pa.ArrowInvalid: a line is not an object.
    """
    found = pa.schema([])
    for lines in _line_blocks(handle):
        schema = pa.schema(
            [field.with_type(_map_types(field.type, _plain)) for field in _read(lines, pj.ParseOptions()).schema]
        )
        try:
            found = pa.unify_schemas([found, schema], promote_options="permissive")
        except (pa.ArrowTypeError, pa.ArrowInvalid) as error:
            raise SchemaError(Fault(where, "one type per column", str(error), "write the file again with one type")) from error
    return pa.schema([field.with_type(_map_types(field.type, _with_values)) for field in _flatten(found)])


def read_blocks(handle: Any, wanted: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Yields some columns of the lines of an open file, in order, with the types of `wanted`; null where a line has no such key.

    `a.b` is the key `b` of the object `a`, or a key of that name.

    Raises:
        pa.ArrowInvalid: a line is not an object, or has a value that the type cannot hold, or a text that is not UTF-8.
    """
    nested = _nest(wanted)
    options = pj.ParseOptions(explicit_schema=pa.schema([*wanted, *nested]), unexpected_field_behavior="ignore")
    for lines in _line_blocks(handle):
        rows = _read(lines, options)
        rows.validate(full=True)  # arrow does not check that texts are UTF-8
        columns = {}
        for name in wanted.names:
            first, *inner = name.split(".")
            is_inside = inner and any(field.name == first for field in nested)
            columns[name] = pc.coalesce(rows[name], pc.struct_field(rows[first], inner)) if is_inside else rows[name]
        yield from pa.table(columns, schema=wanted).combine_chunks().to_batches()


def _line_blocks(handle: Any) -> Iterator[bytes]:
    while block := handle.read(BLOCK_BYTES):
        lines = block + handle.readline()
        if lines.strip():
            yield lines


def _read(lines: bytes, options: pj.ParseOptions) -> pa.Table:
    return pj.read_json(io.BytesIO(lines), read_options=pj.ReadOptions(block_size=len(lines)), parse_options=options)


def _flatten(fields: Iterable[pa.Field], prefix: str = "") -> Iterator[pa.Field]:
    """Yields the columns of a schema with those in objects in place of the objects."""
    for field in fields:
        if pat.is_struct(field.type):
            yield from _flatten(field.type, f"{prefix}{field.name}.")
        else:
            yield field.with_name(prefix + field.name)


def _nest(wanted: pa.Schema) -> list[pa.Field]:
    """Returns the objects that columns named `a.b` may be in; none for an object whose name is a column itself."""
    inner: dict[str, list[pa.Field]] = {}
    for field in wanted:
        first, dot, rest = field.name.partition(".")
        if dot and first not in wanted.names:
            inner.setdefault(first, []).append(field.with_name(rest))
    return [pa.field(name, _object(fields)) for name, fields in inner.items()]


def _object(fields: list[pa.Field]) -> pa.DataType:
    schema = pa.schema(fields)
    return pa.struct([*(field for field in fields if "." not in field.name), *_nest(schema)])


def _plain(kind: pa.DataType) -> pa.DataType:
    """Returns text in place of the timestamps that arrow finds in texts."""
    return pa.string() if pat.is_timestamp(kind) else kind


def _with_values(kind: pa.DataType) -> pa.DataType:
    """Returns text where no value was found."""
    return pa.string() if pat.is_null(kind) else kind


def _map_types(kind: pa.DataType, change: Callable[[pa.DataType], pa.DataType]) -> pa.DataType:
    """Returns a type whose parts, at any depth of lists and objects, are changed."""
    if pat.is_list(kind):
        return pa.list_(kind.value_field.with_type(_map_types(kind.value_type, change)))
    if pat.is_struct(kind):
        return pa.struct([field.with_type(_map_types(field.type, change)) for field in kind])
    return change(kind)
