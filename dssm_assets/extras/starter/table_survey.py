"""Surveys an unknown table: format, layout and encoding of its files, and a profile of each column."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
from pydantic import ValidationError

from dssm_assets.core.config.pipeline import FileFormat, Layout, SourceTable
from dssm_assets.core.errors import ConfigError, Fault
from dssm_assets.core.sources.convert import NO_IDS
from dssm_assets.extras.starter.column_roles import ColumnProfile, profile_column
from dssm_assets.extras.starter.time_formats import find_time_formats
from dssm_assets.storage.files import check_file, decoding_errors, list_files
from dssm_assets.storage.locations import location_errors, open_location
from dssm_assets.storage.sources.reader import map_rows
from dssm_assets.storage.sources.source import Source, SourceMissingError, SourcePiece
from dssm_assets.storage.sources.source_files import ENDINGS, PARQUET_MAGIC, SourceFile, is_hidden, open_source
from dssm_assets.storage.sources.text_files import CsvShape, EncodingError, open_bytes, read_head, split_lines

_DATABASES: Final = frozenset({"env", "postgresql", "postgres", "mysql", "mariadb", "sqlite"})
_NUMBER: Final = re.compile(r"[+-]?(?:\d+(?:[.,]\d*)?|\.\d+)(?:[eE][+-]?\d+)?$")
_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}(?:$|[ T])")
_ID_NAME: Final = re.compile(r"(?:^|[_\- .])[iI][dD]s?$|[a-z]I[dD]s?$")
_NO_NAMES: Final = ("", "NULL", "\\N", *NO_IDS)
"""Fields of a csv row that mean a missing value."""


@dataclass(frozen=True)
class TableSurvey:
    """The result of a survey.

    Attributes:
        table: location, format, layout, column names (if there is no header line), encoding and decimal mark. Maps no columns.
        days: the days of its day folders, ascending. Empty for other layouts.
    """

    table: SourceTable
    columns: tuple[ColumnProfile, ...]
    days: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        return self.columns[0].rows if self.columns else 0


def survey_table(uri: str, name: str, *, is_log: bool, log: Callable[[str], None] = lambda line: None) -> TableSurvey:
    """Surveys a table. Reads a log completely, but only the last day folder of another table. `log` receives progress lines.

    Raises:
        SourceMissingError: there is no file of a known format.
        SchemaError: the files have incompatible schemas.
    """
    table = survey_uri(uri, name) or _find_layout(uri, name)
    days, pieces = _list_pieces(open_source(table, name), is_log)
    is_csv, first = table.format is FileFormat.CSV, pieces[0]
    if is_csv and isinstance(first, SourceFile):
        heads = [piece.read_head() for piece in (first, pieces[-1]) if isinstance(piece, SourceFile)]
        if count := count_unnamed(heads[0], first.csv_shape()) or _count_unlike(*heads, shape=first.csv_shape()):
            pieces = _change(pieces, column_names=[f"column_{place}" for place in range(1, count + 1)])
    for encoding in (None, "cp1252", "latin-1"):  # cp1252 has more printable characters, latin-1 knows every byte
        pieces = _change(pieces, encoding=encoding)
        with suppress(EncodingError):
            columns = _profile(pieces, log)
            break
    has_comma, first = any(column.has_decimal_comma for column in columns), pieces[0]
    if is_csv and has_comma and isinstance(first, SourceFile) and first.csv_shape().separator != ",":
        pieces = _change(pieces, decimal_mark=",")
        columns = _profile(pieces, log)
    return TableSurvey(pieces[0].source.table, columns, tuple(days))


@contextmanager
def open_rows(survey: TableSurvey) -> Iterator[pa.Table]:
    """Yields the rows of a surveyed user or item table. If it has day folders, reads only the last one."""
    _, pieces = _list_pieces(open_source(survey.table, "table"), is_log=False)
    with map_rows(pieces) as rows:
        yield rows


def _list_pieces(source: Source, is_log: bool) -> tuple[list[str], list[SourcePiece]]:
    days = source.days() if source.table.layout is Layout.DS_FOLDERS else {}
    folders = [paths[0] for paths in days.values()]
    chosen: list[str | None] = [*(folders if is_log else folders[-1:])] or [None]
    return list(days), [piece for folder in chosen for piece in source.pieces(folder)]


def _change(pieces: Sequence[SourcePiece], **settings: Any) -> list[SourcePiece]:
    source = pieces[0].source
    source = replace(source, table=source.table.model_copy(update=settings))
    return [replace(piece, source=source) for piece in pieces]


def _profile(pieces: Sequence[SourcePiece], log: Callable[[str], None]) -> tuple[ColumnProfile, ...]:
    counts = [piece.estimate_rows() for piece in pieces]
    with map_rows(pieces, log, None if None in counts else sum(filter(None, counts))) as rows:
        return tuple(profile_column(name, rows.column(name)) for name in rows.column_names)


def _find_layout(uri: str, name: str) -> SourceTable:
    """Finds a table's format and layout by file endings and folders named ds=.... If files have no ending, reads the first one.

    Files are JSON lines only if there is no parquet or csv file: a `schema.json` beside a table does not belong to it.
    """
    fs, path = open_location(uri, name)
    with location_errors(uri, name):
        exists = fs.exists(path)
        names = [path] if fs.isfile(path) else list_files(fs, path)
    if not exists:
        raise SourceMissingError(Fault(f"{name}, {uri}", "a file or folder", "no such file or folder", "correct the path"))
    shown = [file for file in names if not is_hidden(file, path)]
    counts = {form: sum(file.endswith(endings) for file in shown) for form, endings in ENDINGS.items()}
    chosen: FileFormat | None = max(counts, key=lambda form: (counts[form] and form is not FileFormat.JSON, counts[form]))
    if not max(counts.values()):
        unnamed = [file for file in shown if file == path or "." not in file.rpartition("/")[2]]
        chosen = _find_format(fs, unnamed[0], f"{name}, {uri}") if unnamed else None
    if chosen is None:
        others = ", ".join(file.rpartition("/")[2] for file in names[:5]) or "nothing"
        remedy = "give a .parquet, .csv or .jsonl file, or a folder of such files"
        raise SourceMissingError(Fault(f"{name}, {uri}", "parquet, csv or JSON lines files", others, remedy))
    plain = SourceTable(uri=uri, format=chosen)
    is_daily = not fs.isfile(path) and bool(open_source(plain, name).days())
    return plain.model_copy(update={"layout": Layout.DS_FOLDERS}) if is_daily else plain


def _find_format(fs: Any, path: str, where: str) -> FileFormat | None:
    """Returns the format of a file with an unknown ending, by its content. None: the file is neither parquet nor text."""
    with decoding_errors(where, "a text file", "give a .parquet, .csv or .jsonl file"):
        check_file(fs, path)
        with fs.open(path, "rb") as plain:
            if plain.read(len(PARQUET_MAGIC)) == PARQUET_MAGIC:
                return FileFormat.PARQUET
        with open_bytes(fs, path, where) as handle:
            head = read_head(handle, None)
    if not head.strip() or any(ord(letter) < ord(" ") and letter not in "\t\r\n\x1d\x1f" for letter in head):
        return None
    return FileFormat.JSON if head.lstrip().startswith(("{", "[")) else FileFormat.CSV


def survey_uri(uri: str, name: str) -> SourceTable | None:
    """Returns a table of a database or lakehouse with its layout. None: the URI is a path of files.

    A table of a database is `env:SHOP_DB#public.clicks`, `sqlite:///shop.db#clicks` or another of its URIs; a Delta table is
    its folder; an Iceberg table is `iceberg:CATALOG#shop.clicks`.

    Raises:
        InputError, ConfigError: as in `open_source`, or the URI has no table, or it has a password.
    """
    scheme, (location, _, part) = uri.partition(":")[0].lower(), uri.rpartition("#")
    if scheme.partition("+")[0] in _DATABASES:  # postgresql+psycopg2 is SQLAlchemy's
        given: dict[str, Any] = {"format": FileFormat.SQL, "table": part}
    elif scheme == "iceberg":
        given = {"format": FileFormat.ICEBERG, "table": part}
        location = location.partition(":")[2]
    else:
        fs, path = open_location(uri, name)
        with location_errors(uri, name):
            if not fs.isdir(f"{path}/_delta_log"):
                return None
        given, location = {"format": FileFormat.DELTA}, uri
    if scheme == "sqlite":
        location = f"sqlite:///{Path(location.removeprefix('sqlite:///')).absolute()}"
    try:
        SourceTable(uri=uri, **given)  # a # may be one of a password
        table = SourceTable(uri=location, **given)
    except ValidationError:  # it would show the URI
        remedy = "put a URI with a password into an environment variable and give env:NAME#TABLE"
        raise ConfigError(Fault(f"table {name}", "DATABASE#TABLE without a password", "another text", remedy)) from None
    has_days = open_source(table, name).days()
    return table.model_copy(update={"layout": Layout.DS_FOLDERS}) if has_days else table


def count_unnamed(head: str, shape: CsvShape) -> int:
    """Returns the number of columns of a csv file without a header line. 0: the first line is a header.

    The first line is a row if it has a time, or a number while no other field could name a column of numbers. Names of ids,
    and names given by dataframes (0, 1, 2, ...), belong to a header. By hand: "item,2019,2020" above "17,3,5" is a header,
    and so is "user_id,2019" above any row; "u1,2019" above "u2,2020" is a row.
    """
    begin, *others = head.split("\n")
    first = next(iter(split_lines([begin], shape)), [])
    named = first[1:] if first[:1] == [""] else first
    is_numbered = named == [str(number) for number in range(len(named))]
    if is_numbered or any(map(_ID_NAME.search, first)) or not any(map(_is_value, first)):
        return 0
    if any(_is_value(field) and not _NUMBER.match(field.strip()) for field in first):
        return len(first)
    rows = [row for row in split_lines(others[:-1] or others, shape) if len(row) == len(first)]
    for field, *below in zip(first, *rows, strict=True):
        is_name = field not in _NO_NAMES and not _NUMBER.match(field.strip())
        if below and is_name and all(_NUMBER.match(value.strip()) for value in below):
            return 0
    return len(first)


def _count_unlike(*heads: str, shape: CsvShape) -> int:
    """Returns the number of columns of a folder's files if at most half of the fields of two first lines are equal, else 0.

    By hand: "eva,film one,seen" and "ben,film two,seen" are rows; "user_id,film" belongs to a header, whatever follows.
    """
    one, other = (next(iter(split_lines([head.partition("\n")[0]], shape)), []) for head in heads)
    if len(one) != len(other) or any(map(_ID_NAME.search, one + other)):
        return 0
    return len(one) if 2 * len({*one} & {*other}) <= len({*one}) else 0


def _is_value(field: str) -> bool:
    text = field.strip()
    return bool(_NUMBER.match(text) or _DATE.match(text)) or bool(text and find_time_formats(pa.array([text])))
