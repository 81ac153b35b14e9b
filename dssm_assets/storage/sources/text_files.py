"""Copies text files of any encoding and compression to local UTF-8, and finds the separator and quotes of csv files.

A file is read as UTF-16 if it begins with a UTF-16 byte order mark or has many zeros in its first bytes, else as UTF-8.
Fields may be in quotes, except in dumps: there a quote is an ordinary character. A file is a dump if `::` separates its
fields, or if tabs separate them and no field in its first lines is in quotes.

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
from pathlib import Path
from typing import Any, Final

from dssm_assets.core.errors import Fault, SchemaError

COMPRESSIONS: Final = ("", ".gz", ".bz2", ".xz", ".zip")
"""Endings that may follow a text file's ending."""
_LONG: Final = "::"
_SHORT: Final = "\x1f"
"""Unit separator. It replaces `::` and spaces, because a csv reader needs a separator of one character."""
_SPACES: Final = " "
"""One or several spaces between two fields, as in aligned columns."""
_SEPARATORS: Final = (_LONG, ",", ";", "\t", "|")
_HEAD_BYTES: Final = 1 << 20
_SAMPLE_BYTES: Final = 1 << 16
_BLOCK_BYTES: Final = 1 << 20
_QUOTED: Final = re.compile(r'"[^"]*"')
_PACKED: Final = (b"\x1f\x8b", b"BZh9", b"\xfd7zXZ\x00", b"PK\x03\x04")
"""First bytes of files of gzip, bzip2, xz and zip."""
_BOMS: Final = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


class EncodingError(SchemaError):
    """A text has bytes that are invalid in its encoding."""


@dataclass(frozen=True)
class CsvShape:
    """The separator of csv lines, and whether fields may be in quotes."""

    separator: str
    has_quotes: bool

    @property
    def delimiter(self) -> str:
        return _SHORT if self.separator in (_LONG, _SPACES) else self.separator


@contextmanager
def open_bytes(fs: Any, path: str, where: str) -> Iterator[Any]:
    """Opens a file and decompresses it by its ending. An archive must have a single file.

    Raises:
        SchemaError: the archive is broken, or has no file or several; or the file is compressed without the ending for it.
    """
    if not path.endswith(".zip"):
        with fs.open(path, "rb", compression="infer") as handle:
            if _peek(handle).startswith(_PACKED):
                got = "compressed bytes under a name without such an ending"
                remedy = f"give the file the ending of its compression: {', '.join(COMPRESSIONS[1:])}"
                raise SchemaError(Fault(where, "text", got, remedy))
            yield handle
        return
    with fs.open(path, "rb") as packed, zipfile.ZipFile(packed) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith((".", "__"))]
        if len(names) != 1:
            got = f"{len(names)}: {', '.join(names[:5])}" if names else "none"
            raise SchemaError(Fault(where, "one file in the archive", got, "unpack it and name the file"))
        try:
            member = archive.open(names[0])
        except (RuntimeError, NotImplementedError) as error:
            expected = "an archive without a password, packed as zip does"
            raise SchemaError(Fault(where, expected, str(error), "unpack it and name the file")) from error
        with member as handle:
            yield handle


def copy_text(handle: Any, target: Path, encoding: str | None, separator: str | None, where: str, key: str) -> None:
    """Writes an open text file to a local file in UTF-8, block by block.

    Args:
        encoding: Python's name of the encoding. None: UTF-8, or UTF-16 if the first bytes show it.
        separator: separator of a csv file, see `CsvShape.delimiter`.
        where: name of the file in errors.
        key: the configuration key of the encoding, for errors.

    Raises:
        EncodingError: names the first invalid byte and its line.
    """
    decoder = codecs.getincrementaldecoder(encoding or _find_encoding(handle))()
    lines, waiting, block = 1, "", b"begin"
    with target.open("wb") as copy:
        while block:
            block = handle.read(_BLOCK_BYTES)
            try:
                text = waiting + decoder.decode(block, final=not block)
                is_long = separator in (_LONG, _SPACES)
                whole = text[: text.rfind("\n") + 1] if block and is_long else text  # the next block may continue a separator
                copy.write(_shorten(whole, separator).encode())
            except UnicodeError as error:
                got = str(error)
                if isinstance(error, UnicodeDecodeError):
                    before = error.object[: error.start].decode(error.encoding, errors="replace")
                    got = f"the byte 0x{error.object[error.start]:02X} in line {lines + before.count(chr(10)):,}"
                expected, remedy = f"text in {encoding}, as {key} says", f"correct {key}"
                if encoding is None:
                    expected = "text in UTF-8"
                    remedy = f"name the encoding in {key}, such as cp1252 or latin-1, or write the file again in UTF-8"
                raise EncodingError(Fault(where, expected, got, remedy)) from error
            lines, waiting = lines + whole.count("\n"), text[len(whole) :]


def _shorten(text: str, separator: str | None) -> str:
    """Replaces each separator of several characters by one character, in whole lines."""
    if separator == _SPACES:
        return re.sub(" +", _SHORT, re.sub(r"^ +| +(?=\r?$)", "", text, flags=re.MULTILINE))
    return text.replace(_LONG, _SHORT) if separator == _LONG else text


def read_head(handle: Any, encoding: str | None) -> str:
    """Returns the first lines of an open text file. The first line is complete."""
    reader = io.TextIOWrapper(handle, encoding or _find_encoding(handle), errors="replace")
    head = reader.readline(_HEAD_BYTES) + reader.read(_SAMPLE_BYTES)
    reader.detach()
    return head


def find_csv_shape(head: str, columns: int | None = None) -> CsvShape:
    r"""Finds the separator of a csv file: it occurs equally often in each of the first lines.

    By hand: "1\tRock, Live\n2\tPop" has a comma only in its first line, but a tab in each line. So tabs separate the fields.
    Spaces are the separator only if no other fits, there are no quotes, and all lines have the same number of fields.

    Args:
        columns: number of columns, if their names are configured and the first line is a row.
    """
    first, *others = (_QUOTED.sub("", line) for line in head.split("\n"))
    counts = {separator: first.count(separator) for separator in _SEPARATORS}
    possible = [one for one, count in counts.items() if count and (columns is None or count == columns - 1)]
    widths = {len(line.split()) for line in (first, *others[:-1]) if line}
    if not any(counts.values()) and '"' not in head and len(widths) == 1 and widths != {1} and columns in (None, *widths):
        return CsvShape(_SPACES, False)
    regular = [
        one for one in possible if all(line.count(one) == counts[one] for line in others[:-1] if line)
    ]  # the last may be cut off
    usual = "," if "," in possible else max(possible, key=lambda one: counts[one], default=",")
    preferred = [one for one in (_LONG, "\t", usual) if one in regular]  # the first two are rare in texts
    separator = next(iter([*preferred, *regular]), usual)
    return CsvShape(separator, separator != _LONG and (separator != "\t" or _has_quoted_fields(head)))


def _has_quoted_fields(head: str) -> bool:
    """Returns whether quotes around fields, in lines separated by tabs, are csv quotes or part of the text.

    They are csv quotes if all names in the first line have them. Otherwise all lines must have the same number of fields when read
    with quotes. In addition, the numbers must differ when read without, or a quote inside a quoted field must be doubled.
    """
    begin, *others = head.split("\n")
    if '"' not in head or all(re.fullmatch('".*"', name) for name in begin.split("\t")):
        return '"' in head
    lines = [line for line in (begin, *(others[:-1] or others)) if line]  # the last may be cut off
    separators = begin.count("\t")
    is_regular = {len(row) for row in split_lines(lines, CsvShape("\t", True), is_strict=True) if row} == {separators + 1}
    is_literal = {line.count("\t") for line in lines} == {separators}
    return is_regular and (not is_literal or bool(re.search(r'(?:^|\t)"[^\t]*""[^\t]*"(?:\t|$)', head, re.MULTILINE)))


def split_lines(lines: Sequence[str], shape: CsvShape, is_strict: bool = False) -> list[list[str]]:
    """Splits lines into fields. Returns [] if a line is too long for a csv reader or, if strict, has quotes inside fields."""
    if shape.delimiter == _SHORT:
        return [_shorten(line, shape.separator).split(_SHORT) for line in lines]
    rows = (f"{line}\n" for line in lines)
    try:
        if shape.has_quotes:
            return list(csv.reader(rows, delimiter=shape.separator, strict=is_strict))
        return list(csv.reader(rows, delimiter=shape.separator, quoting=csv.QUOTE_NONE))
    except csv.Error:
        return []


def _find_encoding(handle: Any) -> str:
    """Returns the encoding of an open file, judged by its first bytes. Rewinds the file."""
    head = _peek(handle)
    for mark, encoding in _BOMS:
        if head.startswith(mark):
            return encoding
    zeros: Sequence[int] = [head[start::2].count(0) for start in (0, 1)]
    if max(zeros) > len(head) // 4:
        return "utf-16-be" if zeros[0] > zeros[1] else "utf-16-le"
    return "utf-8"


def _peek(handle: Any) -> bytes:
    head = bytes(handle.read(64))
    handle.seek(0)
    return head
