"""Texts in any encoding, compression and separation give the same rows; what cannot be read is named with its line."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
from pathlib import Path
from typing import Any

import pytest

from dssm_assets.core.config.pipeline import SourceTable
from dssm_assets.core.errors import SchemaError
from dssm_assets.storage.sources import text_files
from dssm_assets.storage.sources.reader import read_days
from dssm_assets.storage.sources.source_files import open_source
from dssm_assets.storage.sources.text_files import CsvShape, find_csv_shape

ROWS = [{"user_id": 1, "city": "Köln"}, {"user_id": 2, "city": "a\n::b"}]
TEXT = 'user_id,city\r\n1,Köln\r\n2,"a\n::b"\r\n'


def read(path: Path, **config: Any) -> list[dict[str, Any]]:
    table = SourceTable(uri=str(path), **({"format": "csv"} | config))
    ((_, rows),) = list(read_days(open_source(table, "user_table"), ["2026-01-01"]))
    return rows.to_pylist()


def zipped(*names: str) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name in names:
            archive.writestr(name, TEXT)
    return packed.getvalue()


@pytest.mark.parametrize("block_bytes", [1, 1 << 20])
@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        (TEXT.encode("utf-8"), None),
        (TEXT.encode("utf-8-sig"), None),
        (TEXT.encode("utf-16"), None),
        (TEXT.encode("utf-16-le"), None),
        (TEXT.encode("utf-16-be"), None),
        (TEXT.encode("latin-1"), "latin-1"),
        (TEXT.encode("cp1252"), "cp1252"),
    ],
)
def test_encodings_give_the_same_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, encoding: str | None, block_bytes: int
) -> None:
    monkeypatch.setattr(text_files, "_BLOCK_BYTES", block_bytes)
    (tmp_path / "u.csv").write_bytes(content)
    assert read(tmp_path / "u.csv", encoding=encoding) == ROWS


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1"])
def test_json_lines_have_encodings_too(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "u.json").write_bytes('{"user_id": 1, "city": "Köln"}\n'.encode(encoding))
    named = encoding if encoding == "latin-1" else None
    assert read(tmp_path / "u.json", format="json", encoding=named) == ROWS[:1]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("u.csv.gz", gzip.compress(TEXT.encode(), mtime=0)),
        ("u.csv.bz2", bz2.compress(TEXT.encode())),
        ("u.csv.xz", lzma.compress(TEXT.encode())),
        ("u.csv.zip", zipped("folder/u.csv", "__MACOSX/._u.csv")),
    ],
)
def test_texts_may_be_compressed(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert read(tmp_path) == ROWS  # found in the folder by its ending


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (zipped("a.csv", "b.csv"), r"u\.csv\.zip: expected one file in the archive, got 2: a\.csv, b\.csv\. To fix: unpack it"),
        (zipped("folder/"), "expected one file in the archive, got none"),
        (b"user_id", "File is not a zip file"),
    ],
)
def test_archives_of_no_or_several_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "u.csv.zip").write_bytes(content)
    with pytest.raises(SchemaError, match=message):
        read(tmp_path)


def test_archives_with_a_password_or_broken_bytes_are_refused(tmp_path: Path) -> None:
    content = bytearray(zipped("a.csv"))
    central = content.index(b"PK\x01\x02")
    content[6] |= 1
    content[central + 8] |= 1  # the flag of encryption
    (tmp_path / "u.csv.zip").write_bytes(content)
    with pytest.raises(SchemaError, match=r"expected an archive without a password, .* got .*encrypted"):
        read(tmp_path)
    (tmp_path / "u.csv.zip").unlink()
    (tmp_path / "u.csv.xz").write_bytes(TEXT.encode())
    with pytest.raises(SchemaError, match=r"u\.csv\.xz: expected a readable csv file, got .*format"):
        read(tmp_path)


def test_lines_may_end_as_on_old_computers(tmp_path: Path) -> None:
    (tmp_path / "u.csv").write_bytes("user_id,city\r1,Köln\r2,Rhön\r".encode())
    assert [row["user_id"] for row in read(tmp_path / "u.csv")] == [1, 2]


def test_a_byte_of_another_encoding_is_named_with_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_files, "_BLOCK_BYTES", 7)
    (tmp_path / "u.csv").write_bytes("user_id,city\n1,Köln\n2,Rhön\n".encode().replace("ö".encode(), b"\x81", 2)[:-1])
    expected = (
        r"u\.csv: expected text in UTF-8, got the byte 0x81 in line 2. To fix: name the encoding in tables\.user\.encoding"
    )
    with pytest.raises(SchemaError, match=expected):
        read(tmp_path / "u.csv")
    with pytest.raises(
        SchemaError, match=r"expected text in cp1252, as tables\.user\.encoding says, got the byte 0x81 in line 2"
    ):
        read(tmp_path / "u.csv", encoding="cp1252")


def test_bytes_that_their_encoding_cannot_give_are_refused(tmp_path: Path) -> None:
    (tmp_path / "u.csv").write_bytes(b"user_id,city\n1,\\ud800\n")
    for encoding in ("unicode_escape", "punycode"):
        with pytest.raises(SchemaError, match=r"u\.csv: expected"):
            read(tmp_path / "u.csv", encoding=encoding)


@pytest.mark.parametrize("separator", ["::", "\t"])
@pytest.mark.parametrize("block_bytes", [1, 1 << 20])
def test_dumps_have_no_header_and_no_quotes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, separator: str, block_bytes: int
) -> None:
    monkeypatch.setattr(text_files, "_BLOCK_BYTES", block_bytes)
    (tmp_path / "u.dat").write_text(f'1{separator}a: b, "c\n2{separator}"d"\n')
    rows = read(tmp_path / "u.dat", column_names=["user_id", "name"])
    assert rows == [{"user_id": 1, "name": 'a: b, "c'}, {"user_id": 2, "name": '"d"'}]


@pytest.mark.parametrize(
    ("head", "columns", "expected"),
    [
        ("a,b\n1,2\n", None, CsvShape(",", True)),
        ("1\tRock, Live\n2\tPop\n3\tRap\n", None, CsvShape("\t", False)),
        ("1\tRock, Live\n2\tPop, Live\n", None, CsvShape("\t", False)),
        ('"a"\t"b"\n"1"\t"2, 3"\n', None, CsvShape("\t", True)),
        ('a\tb\n1\t"He said ""hi"""\n', None, CsvShape("\t", True)),
        ('a\tb\n1\t"with\ttab"\n2\tc\n', None, CsvShape("\t", True)),
        ('a\tb\n1\t"two\nlines"\n2\tc\n', None, CsvShape("\t", True)),
        ('1\t"Weird Al" Yankovic\n2\t"Heroes"\n', None, CsvShape("\t", False)),
        ('1\t"open\n2\ty"\n', None, CsvShape("\t", False)),
        ("1::A|B::c, d\n2::A::c\n3::A::c\n", None, CsvShape("::", False)),
        ("1,a|b\n2,c|d\n", None, CsvShape(",", True)),
        ("1,a|b\n", 2, CsvShape(",", True)),
        ("1,5|a,b|c\n2|a|c\n", 3, CsvShape("|", True)),
        ("id\n1\n", None, CsvShape(",", True)),
        ("  1  20 3\n10 200 3 \n", None, CsvShape(" ", False)),
        ("1 2 3\n4 5 6\n", 2, CsvShape(",", True)),
        ("item name\na\nb c\n", None, CsvShape(",", True)),
    ],
)
def test_the_separator_is_the_one_that_every_line_has_as_often(head: str, columns: int | None, expected: CsvShape) -> None:
    assert find_csv_shape(head, columns) == expected
