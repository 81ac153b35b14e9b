"""An auditor of a folder: which files hold some texts or numbers. It knows formats of files, and nothing of who wrote them.

any file       its bytes: texts in UTF-8, numbers as 8 bytes or in decimal digits
parquet        besides: its rows, and each page without compression, so that a dictionary shows values of rows that are gone
Arrow          besides: its rows and its dictionaries
JSON, SQLite   besides: its values, and its rows
Avro           besides: its blocks without compression
LanceDB        besides: the rows of all versions of its tables
"""

from __future__ import annotations

import functools
import json
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

_CODECS = {"ZSTD": "zstd", "LZ4": "lz4_raw", "LZ4_RAW": "lz4_raw", "SNAPPY": "snappy", "GZIP": "gzip"}
_DATA_PAGE_V2 = 3
_SQLITE = b"SQLite format 3"


def find_marks(folder: Path, texts: Sequence[str] = (), numbers: Sequence[int] = ()) -> dict[str, set[str | int]]:
    """Returns path below a folder -> the marks that the file, or the LanceDB, there holds; of links those of the files themselves."""
    needles = {text.encode(): text for text in texts}
    found: dict[str, set[str | int]] = {}
    for path in sorted(one for one in folder.rglob("*") if one.is_file() and not one.is_symlink()):
        if marks := _find_in_file(path, path.read_bytes(), tuple(texts), tuple(numbers)):
            found[str(path.relative_to(folder))] = set(marks)
    for place in sorted({path.parent for path in folder.rglob("*.lance")}):
        marks = {mark for text in _read_lancedb(place) for needle, mark in needles.items() if needle in text}
        if marks:
            found[str(place.relative_to(folder))] = marks
    return found


def _find_in_file(path: Path, content: bytes, texts: tuple[str, ...], numbers: tuple[int, ...]) -> frozenset[str | int]:
    if content.startswith(_SQLITE):
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            return _find_in([content, "\n".join(database.iterdump()).encode()], texts, numbers)
    return _find_in_content(content, texts, numbers)


@functools.cache  # most files of a world are the same in all its copies
def _find_in_content(content: bytes, texts: tuple[str, ...], numbers: tuple[int, ...]) -> frozenset[str | int]:
    return _find_in(_read_parts(content), texts, numbers)


def _find_in(parts: Iterable[bytes], texts: tuple[str, ...], numbers: tuple[int, ...]) -> frozenset[str | int]:
    marks: set[str | int] = set()
    for part in parts:
        marks |= {text for text in texts if text.encode() in part}
        marks |= {one for one in numbers if one.to_bytes(8, "little", signed=True) in part or str(one).encode() in part}
    return frozenset(marks)


def _read_parts(content: bytes) -> Iterator[bytes]:
    """Yields the bytes of a file, and what they mean."""
    yield content
    if content.startswith(b"PAR1") and content.endswith(b"PAR1"):
        yield _show(pq.read_table(pa.BufferReader(content)))
        yield from _read_pages(content)
    elif content.startswith(b"ARROW1"):
        table = pa.ipc.open_file(pa.BufferReader(content)).read_all()
        yield _show(table)
        yield from (_show(pa.table({"values": one})) for one in _find_dictionaries(table))
    elif content.startswith(b"Obj\x01"):
        yield from _inflate(content)
    else:
        with suppress(ValueError):
            yield json.dumps(json.loads(content), ensure_ascii=False).encode()


def _show(table: pa.Table) -> bytes:
    return repr(table.to_pydict()).encode("utf-8", "surrogatepass")


def _find_dictionaries(table: pa.Table) -> Iterator[pa.Array]:
    for column in table.columns:
        for chunk in column.chunks if pa.types.is_dictionary(column.type) else ():
            yield chunk.dictionary


def _read_pages(content: bytes) -> Iterator[bytes]:
    """Yields the pages of a parquet file without compression, dictionaries among them."""
    metadata = pq.read_metadata(pa.BufferReader(content))
    for group in range(metadata.num_row_groups):
        for place in range(metadata.num_columns):
            column = metadata.row_group(group).column(place)
            at = min(filter(None, (column.dictionary_page_offset, column.data_page_offset)))
            end = at + column.total_compressed_size
            while at < end:
                header, at = _read_struct(content, at)
                kind, size, stored = header[1], header[2], header[3]
                body, at = content[at : at + stored], at + stored
                # The levels of a page of version 2 are not compressed.
                plain = header[8][5] + header[8][6] if kind == _DATA_PAGE_V2 else 0
                if column.compression == "UNCOMPRESSED" or plain == stored:
                    yield body
                else:
                    yield pa.decompress(body[plain:], size - plain, _CODECS[column.compression], asbytes=True)


def _read_struct(data: bytes, at: int) -> tuple[dict[int, Any], int]:
    """Returns field -> value of a struct in Thrift's compact protocol, as page headers are, and where it ends."""
    fields: dict[int, Any] = {}
    number = 0
    while head := data[at]:
        at += 1
        if head >> 4:
            number += head >> 4
        else:
            number, at = _read_integer(data, at)
        fields[number], at = _read_value(data, at, head & 15)
    return fields, at + 1


def _read_value(data: bytes, at: int, kind: int) -> tuple[Any, int]:
    if kind in (1, 2):
        return kind == 1, at
    if kind == 3:
        return data[at], at + 1
    if kind in (4, 5, 6):
        return _read_integer(data, at)
    if kind == 7:
        return None, at + 8
    if kind == 8:
        length, at = _read_varint(data, at)
        return data[at : at + length], at + length
    assert kind == 12, "page headers have no lists and maps"
    return _read_struct(data, at)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        at += 1
        if data[at - 1] < 128:
            return value, at
        shift += 7


def _read_integer(data: bytes, at: int) -> tuple[int, int]:
    value, at = _read_varint(data, at)
    return (value >> 1) ^ -(value & 1), at


def _inflate(content: bytes) -> Iterator[bytes]:
    """Yields what deflate has compressed in an Avro file: each place where a stream of more than some bytes begins."""
    sync = content[-16:]
    for block in content.split(sync)[1:-1]:
        for start in range(min(20, len(block))):  # the counts before a block
            with suppress(zlib.error):
                plain = zlib.decompressobj(-15).decompress(block[start:])
                if len(plain) > 16:
                    yield plain


def _read_lancedb(folder: Path) -> Iterator[bytes]:
    import lancedb  # a second, which no worker of other tests spends

    store = lancedb.connect(folder)
    for name in store.list_tables().tables:
        table = store.open_table(name)
        for version in table.list_versions():
            table.checkout(version["version"])
            yield _show(table.to_arrow())
