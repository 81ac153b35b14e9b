"""JSON lines: one object per line, read in blocks of whole lines with one schema for the whole file. A file of one list of objects is
read as if each had a line of its own.

A key that a line lacks is null. Texts stay texts: a timestamp in a text is read by `core/sources/event_time.py`. Whole numbers are
int64; a column that also has fractions is float64; one of numbers and texts or booleans is text, as in csv. What is in an object
becomes a column of its own: `{"user": {"id": 1}}` has the column `user.id`. Lists stay lists.

Belongs here: lines to columns. Does not belong here: opening files (`source_files.py`).
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj
import pyarrow.types as pat

from dssm_assets.core.errors import Fault, SchemaError
from dssm_assets.storage.files import check_names

BLOCK_BYTES: Final = 16 * 2**20
_MIXED: Final = re.compile(r"Column\(/(.+?)\) changed from (?:string|number|boolean) to (?:string|number|boolean) ")
_LIST_TOKEN: Final = re.compile(rb'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)|[{}]', re.DOTALL)
"""Texts whole, or as far as they are read, so that brackets in them are none, and the brackets of objects."""
_BETWEEN: Final = re.compile(rb"\s*,?\s*")
_NO_OBJECT: Final = re.compile(rb"\s*,?\s*[^\s,{\]]")
_PYTHON_LINE: Final = re.compile(rb"\s*\{\s*u?'")
_NULL_LINE: Final = re.compile(rb"\n[ \t\r]*null[ \t\r]*(?=\n|\Z)")


def find_schema(handle: Any, where: str) -> pa.Schema:
    """Returns the columns of all lines of an open file, which is read to its end; the type of those without any value is null.

    Raises:
        SchemaError: a column has types that no type can hold, such as numbers and lists; or two columns have one name.
        pa.ArrowInvalid: a line is not an object.
    """
    found = pa.schema([])
    for lines in _line_blocks(handle):
        fields = list(_flatten(_read(lines, pj.ParseOptions()).schema))
        check_names([field.name for field in fields], where)
        schema = pa.schema([field.with_type(_map_types(field.type, _plain)) for field in fields])
        try:
            found = _unify(found, schema)
        except (pa.ArrowTypeError, pa.ArrowInvalid) as error:
            raise SchemaError(Fault(where, "one type per column", str(error), "write the file again with one type")) from error
    objects = {name[:end] for name in found.names for end, letter in enumerate(name) if letter == "."}
    return pa.schema([field for field in found if not (pat.is_null(field.type) and field.name in objects)])


def text_without_values(kind: pa.DataType) -> pa.DataType:
    """Returns a type of `find_schema` with text where no value was found."""
    return _map_types(kind, lambda one: pa.string() if pat.is_null(one) else one)


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
    """Yields whole lines; refuses a line `null`: arrow ends the process if it is the first, and else makes a row of it."""
    begin = handle.read(BLOCK_BYTES)
    if begin.lstrip().startswith(b"["):
        yield from _objects_of_list(handle, begin)
        return
    while block := begin or handle.read(BLOCK_BYTES):
        begin = b""
        lines = block + handle.readline()
        if _PYTHON_LINE.match(lines):
            raise pa.ArrowInvalid(
                "JSON parse error: a line of Python, not JSON; json.dumps(ast.literal_eval(line)) makes JSON of it"
            )
        if lines.lstrip().startswith(b"null") or _NULL_LINE.search(lines):
            raise pa.ArrowInvalid("JSON parse error: a line is null")
        if lines.strip():
            yield lines


def _objects_of_list(handle: Any, begin: bytes) -> Iterator[bytes]:
    """Yields the objects of a list, each in a line, as they are written."""
    text, block = begin.lstrip()[1:], begin
    while block:
        block = handle.read(BLOCK_BYTES)
        lines, end = _split_objects(text)
        if lines:
            yield b"\n".join(lines) + b"\n"
        text = text[end:]
        if _NO_OBJECT.match(text):  # else a file without objects would be read into memory
            break
        text += block
    lines, end = _split_objects(text)
    if lines:
        yield b"\n".join(lines) + b"\n"
    if text[end:].strip() != b"]":
        raise pa.ArrowInvalid(
            f"JSON parse error: a list with {text[end:].strip()[:20].decode(errors='replace')!r} after its last object"
        )


def _split_objects(text: bytes) -> tuple[list[bytes], int]:
    """Returns the whole objects at the beginning of a text, without line breaks, and where the rest begins."""
    lines, depth, begin, end = [], 0, 0, 0
    for token in _LIST_TOKEN.finditer(text):
        if token[0] == b"{":
            if not depth:
                begin = token.start()
                if not _BETWEEN.fullmatch(text, end, begin):
                    break
            depth += 1
        elif token[0] == b"}":
            depth -= 1
            if not depth:
                end = token.end()
                lines.append(text[begin:end].replace(b"\r", b" ").replace(b"\n", b" "))
    return lines, end


def _read(lines: bytes, options: pj.ParseOptions) -> pa.Table:
    """Returns the columns of some lines. Where a column has texts and numbers, the numbers become texts."""
    seen: set[str] = set()
    while True:
        try:
            return pj.read_json(io.BytesIO(lines), read_options=pj.ReadOptions(block_size=len(lines)), parse_options=options)
        except pa.ArrowInvalid as error:
            mixed = _MIXED.search(str(error))
            if mixed is None or mixed[1] in seen:
                raise
            seen.add(mixed[1])
            lines = _write_texts(lines, mixed[1].split("/"), error)


class _Number(str):
    """A number as it is written: an id of more than 64 bits keeps its digits, 1.10 its zero, and NaN is no null."""


def _write_number(value: Any) -> orjson.Fragment:
    return orjson.Fragment(str(value))


def _write_texts(lines: bytes, path: list[str], error: pa.ArrowInvalid) -> bytes:
    """Returns lines with texts in place of the numbers and booleans at a path; raises the error if they are not one object a line."""
    *parents, last = path
    rows = []
    for line in lines.splitlines():
        try:
            row = node = json.loads(line or b"{}", parse_int=_Number, parse_float=_Number, parse_constant=_Number)
        except ValueError:
            raise error from None
        for key in parents:
            node = node.get(key) if isinstance(node, dict) else None
        if isinstance(node, dict) and isinstance(node.get(last), bool | _Number):
            node[last] = str(node[last]) if isinstance(node[last], _Number) else orjson.dumps(node[last]).decode()
        try:
            rows.append(orjson.dumps(row, _write_number, orjson.OPT_PASSTHROUGH_SUBCLASS) if line else line)
        except orjson.JSONEncodeError:
            raise error from None
    return b"\n".join(rows)


def _unify(found: pa.Schema, schema: pa.Schema) -> pa.Schema:
    """Returns the columns of both, with text for a plain column of different types."""
    mixed = {
        field.name for field in schema if field.name in found.names and _are_mixed(field.type, found.field(field.name).type)
    }

    def with_text(one: pa.Schema) -> pa.Schema:
        return pa.schema([field.with_type(pa.string()) if field.name in mixed else field for field in one])

    return pa.unify_schemas([with_text(found), with_text(schema)], promote_options="permissive")


def _are_mixed(left: pa.DataType, right: pa.DataType) -> bool:
    """Returns whether two types are different ones of text, number and boolean."""
    kinds = (pat.is_string, pat.is_boolean, lambda kind: pat.is_integer(kind) or pat.is_floating(kind))
    found = [[is_kind(one) for is_kind in kinds] for one in (left, right)]
    return found[0] != found[1] and all(any(one) for one in found)


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


def _map_types(kind: pa.DataType, change: Callable[[pa.DataType], pa.DataType]) -> pa.DataType:
    """Returns a type whose parts, at any depth of lists and objects, are changed."""
    if pat.is_list(kind):
        return pa.list_(kind.value_field.with_type(_map_types(kind.value_type, change)))
    if pat.is_struct(kind):
        return pa.struct([field.with_type(_map_types(field.type, change)) for field in kind])
    return change(kind)
