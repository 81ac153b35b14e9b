"""Text files as they come: any encoding and compression, separated by one or two characters; read as bytes of UTF-8.

A file is UTF-8 unless a byte order mark, or a zero in its first bytes, says that it is UTF-16. Fields are in quotes where they need to be,
but in files separated by `::`, and by tabs unless the first lines have fields in quotes, a quote is a character of its field: those are dumps.

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
from dssm_assets.core.sources.convert import NO_IDS
from dssm_assets.core.sources.time_format import find_time_formats

COMPRESSIONS: Final = ("", ".gz", ".bz2", ".xz", ".zip")
"""Endings that may follow that of a text file."""
EIGHT_BIT: Final = "cp1252"
"""The encoding that `init` takes texts for that are not UTF-8; a superset of the printable characters of Latin-1."""
LATIN_1: Final = "latin-1"
"""It knows every byte."""
_NUMBER: Final = re.compile(r"[+-]?(?:\d+(?:[.,]\d*)?|\.\d+)(?:[eE][+-]?\d+)?$")
_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}(?:$|[ T])")
_ID_NAME: Final = re.compile(r"(?:^|[_\- .])[iI][dD]s?$|[a-z]I[dD]s?$")
_NO_NAMES: Final = ("", "NULL", "\\N", *NO_IDS)
"""Fields of a row without a value."""
_SEPARATORS: Final = ("::", ",", ";", "\t", "|")
_LONG: Final = "::"
_SHORT: Final = "\x1f"
"""Unit separator: takes the place of `::`, because a csv reader wants one character."""
_HEAD_BYTES: Final = 1 << 20
_SAMPLE_BYTES: Final = 1 << 16
_BLOCK_BYTES: Final = 1 << 20
_QUOTED: Final = re.compile(r'"[^"]*"')
_QUOTED_FIELD: Final = re.compile(r'(?:^|\t)"((?:[^"]|"")*+)"(?=\t|$)', re.MULTILINE)
_PACKED: Final = (b"\x1f\x8b", b"BZh9", b"\xfd7zXZ\x00", b"PK\x03\x04")
"""First bytes of what gzip, bzip2, xz and zip write."""
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
    return CsvShape(separator, separator != _LONG and (separator != "\t" or _has_quoted_fields(head)))


def _has_quoted_fields(head: str) -> bool:
    """Returns whether fields of lines separated by tabs may be in quotes.

    They may if all names in the first line are. They may if each line has as many fields read so, and either has not without, or a quote in a
    field in quotes is doubled, as writers of csv do. A field such as "Heroes", which needs no quotes, has them in its text.
    """
    begin, *others = head.split("\n")
    if '"' not in head or all(_QUOTED_FIELD.fullmatch(name) for name in begin.split("\t")):
        return '"' in head
    lines = [line for line in (begin, *(others[:-1] or others)) if line]  # the last may be cut off
    separators = begin.count("\t")
    is_regular = {len(row) for row in _split_lines(lines, CsvShape("\t", True), is_strict=True) if row} == {separators + 1}
    is_literal = {line.count("\t") for line in lines} == {separators}
    return is_regular and (not is_literal or any('""' in field for field in _QUOTED_FIELD.findall("\n".join(lines))))


def _split_lines(lines: Sequence[str], shape: CsvShape, is_strict: bool = False) -> list[list[str]]:
    """Returns the fields of lines; none at all where one is too long for a csv reader, or, if strict, quotes are not around fields."""
    if shape.separator == _LONG:
        return [line.split(_LONG) for line in lines]
    quotes = (
        {"quotechar": '"', "quoting": csv.QUOTE_MINIMAL} if shape.has_quotes else {"quotechar": None, "quoting": csv.QUOTE_NONE}
    )
    try:
        return list(csv.reader((f"{line}\n" for line in lines), delimiter=shape.separator, strict=is_strict, **quotes))
    except csv.Error:
        return []


def count_unnamed(head: str, shape: CsvShape) -> int:
    """Returns how many columns a csv file has whose first line is a row; 0 if that is a header.

    It is a row if a field of it is a time, or a number and no other field names numbers: a text above numbers alone. The name of an id, and
    names that dataframes without names have, 0, 1, 2 and so on, are in a header. By hand: "item,2019,2020" above "17,3,5" is one, and
    "user_id,2019" above any row, and "u1,2019" above "u2,2020" is none.
    """
    begin, *others = head.split("\n")
    first = next(iter(_split_lines([begin], shape)), [])
    named = first[1:] if first[:1] == [""] else first
    if (
        named == [str(place) for place in range(len(named))]
        or any(map(_ID_NAME.search, first))
        or not any(map(_is_value, first))
    ):
        return 0
    if any(_is_value(field) and not _NUMBER.match(field.strip()) for field in first):
        return len(first)
    rows = [row for row in _split_lines(others[:-1] or others, shape) if len(row) == len(first)]
    names_numbers = any(
        rows
        and field not in _NO_NAMES
        and not _NUMBER.match(field.strip())
        and all(_NUMBER.match(row[place].strip()) for row in rows)
        for place, field in enumerate(first)
    )
    return 0 if names_numbers else len(first)


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
    return str(head.decode("utf-8", errors="replace").removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n"))


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
            if _peek(handle).startswith(_PACKED):
                got = "compressed bytes under a name that does not say so"
                raise SchemaError(
                    Fault(where, "text", got, f"give the file the ending of its compression: {', '.join(COMPRESSIONS[1:])}")
                )
            yield handle
        return
    with fs.open(path, "rb") as packed, _open_archive(packed, where) as archive:
        files = [name for name in archive.namelist() if not name.endswith("/") and not _is_hidden(name)]
        if len(files) != 1:
            got = f"{len(files)}: {', '.join(files[:5])}" if files else "none"
            raise SchemaError(Fault(where, "one file in the archive", got, "unpack it and name the file"))
        with _open_member(archive, files[0], where) as member, io.BufferedReader(member, _BLOCK_BYTES) as handle:
            yield handle


def _open_member(archive: zipfile.ZipFile, name: str, where: str) -> Any:
    try:
        return archive.open(name)
    except (RuntimeError, NotImplementedError) as error:
        remedy = "unpack it and name the file"
        raise SchemaError(Fault(where, "an archive without a password, packed as zip does", str(error), remedy)) from error


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
