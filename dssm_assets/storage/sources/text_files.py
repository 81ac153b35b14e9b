"""Text files as they come: any encoding and compression, separated by one or two characters; read as bytes of UTF-8.

A file is UTF-8 unless a byte order mark, or a zero in its first bytes, says that it is UTF-16. Fields are in quotes where they need to be,
but in files separated by `::`, and by tabs without a quoted field in the first line, a quote is a character of its field: those are dumps.

Belongs here: bytes to text, separators, quotes. Does not belong here: columns and rows (`source_files.py`, `json_lines.py`).
"""

from __future__ import annotations

import codecs
import csv
import io
import re
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa

from dssm_assets.core.errors import Fault, SchemaError
from dssm_assets.core.sources.time_format import find_time_formats

COMPRESSIONS: Final = ("", ".gz", ".bz2", ".xz", ".zip")
"""Endings that may follow that of a text file."""
EIGHT_BIT: Final = "cp1252"
"""The encoding that `init` takes texts for that are not UTF-8; a superset of the printable characters of Latin-1."""
LATIN_1: Final = "latin-1"
"""It knows every byte."""
_NUMBER: Final = re.compile(r"[+-]?(?:\d+(?:[.,]\d*)?|\.\d+)(?:[eE][+-]?\d+)?$")
_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}(?:$|[ T])")
_COMPARED_LINES: Final = 20
"""First lines that tell a header from a row."""
_SEPARATORS: Final = ("::", ",", ";", "\t", "|")
_LONG: Final = "::"
_SHORT: Final = "\x1f"
"""Unit separator: takes the place of `::`, because a csv reader wants one character."""
_HEAD_BYTES: Final = 1 << 20
_SAMPLE_BYTES: Final = 1 << 16
_BLOCK_BYTES: Final = 1 << 20
_QUOTED: Final = re.compile(r'"[^"]*"')
_BOMS: Final = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


@dataclass(frozen=True)
class CsvShape:
    """How the lines of a csv file are divided: the separator, and whether a field may be in quotes."""

    separator: str
    has_quotes: bool

    @property
    def delimiter(self) -> str:
        """Returns the separator as one character, as it is in the bytes that `open_text` gives."""
        return _SHORT if self.separator == _LONG else self.separator


@contextmanager
def open_text(fs: Any, path: str, where: str, encoding: str | None, separator: str | None = None) -> Iterator[Any]:
    """Opens a text file for reading bytes of UTF-8.

    Args:
        fs: the filesystem.
        path: the file in it.
        where: its name in errors.
        encoding: as Python names it; None: UTF-8, or UTF-16 where the first bytes say so.
        separator: of a csv file, see `CsvShape.delimiter`.

    Raises:
        SchemaError: an archive has no file or several.
        UnicodeDecodeError: while reading, if a byte is not of the encoding.
    """
    with _open_bytes(fs, path, where) as handle:
        found = encoding or _find_encoding(handle)
        if codecs.lookup(found).name == "utf-8" and separator != _LONG:
            yield handle
        else:
            with io.BufferedReader(_Utf8(handle, found, separator == _LONG), _BLOCK_BYTES) as text:
                yield text


def find_csv_shape(head: str, columns: int | None = None) -> CsvShape:
    """Returns how a csv file is divided, by its first lines: by the separator that the first line has, and each of the others as often.

    By hand: "1\\tRock, Live\\n2\\tPop" has a comma and a tab in its first line, but a comma only there: tabs separate it.

    Args:
        head: the first line whole, then as much as there is.
        columns: how many there are, where names are given and the first line is a row.
    """
    first, *others = (_QUOTED.sub("", line) for line in head.split("\n"))
    counts = {separator: first.count(separator) for separator in _SEPARATORS}
    possible = [one for one, count in counts.items() if count and (columns is None or count == columns - 1)]
    regular = [
        one for one in possible if all(line.count(one) == counts[one] for line in others[:-1] if line)
    ]  # the last may be cut off
    usual = "," if "," in possible else max(possible, key=lambda one: counts[one], default=",")
    preferred = [one for one in (_LONG, "\t", usual) if one in regular]  # texts hardly ever have the first two
    separator = next(iter([*preferred, *regular]), usual)
    begin = head.split("\n", 1)[0]
    return CsvShape(separator, separator != _LONG and (separator != "\t" or bool(_QUOTED.search(begin))))


def count_unnamed(head: str, shape: CsvShape) -> int:
    """Returns how many columns a csv file has whose first line is a row; 0 if that is a header.

    It is a row if a field of it is a time, or a number and no other field names numbers: a text above numbers alone. Names that
    dataframes without names have, 0, 1, 2 and so on, are a header. By hand: "item,2019,2020" above "17,3,5" is one, and "u1,2019" above "u2,2020"
    is none.
    """
    first, *others = (_fields(line, shape) for line in head.split("\n")[:_COMPARED_LINES])
    named = first[1:] if first[:1] == [""] else first
    if named == [str(place) for place in range(len(named))] or not any(map(_is_value, first)):
        return 0
    if any(_is_value(field) and not _NUMBER.match(field.strip()) for field in first):
        return len(first)
    rows = [fields for fields in others if len(fields) == len(first)]
    names_numbers = any(
        rows and not _NUMBER.match(field) and field and all(_NUMBER.match(fields[place]) for fields in rows)
        for place, field in enumerate(first)
    )
    return 0 if names_numbers else len(first)


def _fields(line: str, shape: CsvShape) -> list[str]:
    if shape.separator == _LONG:
        return line.split(_LONG)
    quotes = '"' if shape.has_quotes else None
    quoting: Any = csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE
    return next(csv.reader([line], delimiter=shape.separator, quotechar=quotes, quoting=quoting), [])


def _is_value(field: str) -> bool:
    text = field.strip()
    return bool(_NUMBER.match(text) or _DATE.match(text)) or bool(text and find_time_formats(pa.array([text])))


def find_eight_bit(fs: Any, paths: Sequence[str], where: str) -> str | None:
    """Returns an encoding of one byte a character that reads all files, where one is not UTF-8; None if all are."""
    if not any(find_bad_byte(fs, path, where, None) for path in paths):
        return None
    return LATIN_1 if any(find_bad_byte(fs, path, where, EIGHT_BIT) for path in paths) else EIGHT_BIT


def read_head(handle: Any) -> str:
    """Returns the first lines of an open text file, the first of them whole."""
    head = handle.readline(_HEAD_BYTES) + handle.read(_SAMPLE_BYTES)
    return str(head.decode("utf-8", errors="replace").removeprefix("\ufeff").replace("\r\n", "\n"))


def find_bad_byte(fs: Any, path: str, where: str, encoding: str | None) -> str | None:
    """Returns the first byte of a file that its encoding does not know, with its line, for a message; None if there is none."""
    with _open_bytes(fs, path, where) as handle:
        decoder = codecs.getincrementaldecoder(encoding or _find_encoding(handle))()
        lines = 1
        while True:
            block = handle.read(_BLOCK_BYTES)
            try:
                lines += decoder.decode(block, final=not block).count("\n")
            except UnicodeDecodeError as error:
                read = error.object[: error.start].decode(error.encoding, errors="replace")
                return f"the byte 0x{error.object[error.start]:02X} in line {lines + read.count(chr(10)):,}"
            if not block:
                return None


class _Utf8(io.RawIOBase):
    """The bytes of a text of another encoding in UTF-8, with one character in place of `::` if asked for."""

    def __init__(self, handle: Any, encoding: str, is_shortened: bool) -> None:
        self._handle = handle
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._is_shortened = is_shortened
        self._kept = ""
        self._rest = memoryview(b"")
        self._is_read = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest and not self._is_read:
            self._rest = memoryview(self._next_block())
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    def _next_block(self) -> bytes:
        block = self._handle.read(_BLOCK_BYTES)
        self._is_read = not block
        text = self._kept + self._decoder.decode(block, final=self._is_read)
        self._kept = ""
        if self._is_shortened:
            if block and text.endswith(":"):  # the other half may follow
                text, self._kept = text.rstrip(":"), text[len(text.rstrip(":")) :]
            text = text.replace(_LONG, _SHORT)
        return text.encode()


@contextmanager
def _open_bytes(fs: Any, path: str, where: str) -> Iterator[Any]:
    if not path.endswith(".zip"):
        with fs.open(path, "rb", compression="infer") as handle:
            yield handle
        return
    with fs.open(path, "rb") as packed, _open_archive(packed, where) as archive:
        files = [name for name in archive.namelist() if not name.endswith("/") and not _is_hidden(name)]
        if len(files) != 1:
            got = f"{len(files)}: {', '.join(files[:5])}" if files else "none"
            raise SchemaError(Fault(where, "one file in the archive", got, "unpack it and name the file"))
        with archive.open(files[0]) as member, io.BufferedReader(member, _BLOCK_BYTES) as handle:  # type: ignore[type-var]
            yield handle


def _open_archive(packed: Any, where: str) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(packed)
    except zipfile.BadZipFile as error:
        raise SchemaError(Fault(where, "a zip archive", str(error), "write the file again")) from error


def _is_hidden(name: str) -> bool:
    return any(part.startswith((".", "__")) for part in name.split("/"))


def _find_encoding(handle: Any) -> str:
    """Returns the encoding that the first bytes of an open file tell; it is back at its beginning."""
    head = _peek(handle)
    for mark, encoding in _BOMS:
        if head.startswith(mark):
            return encoding
    zeros: Sequence[int] = [head[place::2].count(0) for place in (0, 1)]
    if max(zeros) > len(head) // 4:
        return "utf-16-be" if zeros[0] > zeros[1] else "utf-16-le"
    return "utf-8"


def _peek(handle: Any) -> bytes:
    head = bytes(handle.read(64))
    handle.seek(0)
    return head
