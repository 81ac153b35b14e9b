"""A survey of an unknown table: format, layout and encoding of its files, and a profile of each column."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from dssm_assets.core.config.pipeline import FileFormat, Layout, SourceTable
from dssm_assets.core.errors import Fault
from dssm_assets.extras.starter.column_roles import ColumnProfile, profile_column
from dssm_assets.storage.files import list_files
from dssm_assets.storage.locations import location_errors, open_location
from dssm_assets.storage.sources.reader import map_rows
from dssm_assets.storage.sources.source import Source, SourcePiece, open_source, survey_uri
from dssm_assets.storage.sources.source_files import (
    ENDINGS,
    SourceFile,
    SourceMissingError,
    find_format,
    is_hidden,
    open_folder,
)
from dssm_assets.storage.sources.text_files import EncodingError


@dataclass(frozen=True)
class TableSurvey:
    """The result of a survey.

    Attributes:
        table: location, format, layout, names of columns without a header line, encoding and decimal mark; no columns are mapped.
        days: its day folders, ascending; empty for other layouts.
    """

    table: SourceTable
    columns: tuple[ColumnProfile, ...]
    days: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        return self.columns[0].rows if self.columns else 0


def survey_table(uri: str, name: str, *, is_log: bool, log: Callable[[str], None] = lambda line: None) -> TableSurvey:
    """Returns the survey of a table: of day folders the last one is read, of a log all of them. `log` receives lines of progress.

    Raises:
        SourceMissingError: if there is no file of a known format.
        SchemaError: if the files have incompatible schemas.
    """
    table = survey_uri(uri, name) or _find_layout(uri, name)
    days, pieces = _list_pieces(open_source(table, name), is_log)
    is_csv, first = table.format is FileFormat.CSV, pieces[0]
    if is_csv and isinstance(first, SourceFile) and (count := first.count_unnamed()):
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
    return TableSurvey(pieces[0].table, columns, tuple(days))


@contextmanager
def open_rows(survey: TableSurvey) -> Iterator[pa.Table]:
    """Yields the rows of a surveyed user or item table: of day folders those of the last one."""
    _, pieces = _list_pieces(open_source(survey.table, "table"), is_log=False)
    with map_rows(survey.table, pieces) as rows:
        yield rows


def _list_pieces(source: Source, is_log: bool) -> tuple[list[str], list[SourcePiece]]:
    days = source.days() if source.table.layout is Layout.DS_FOLDERS else {}
    folders = [paths[0] for paths in days.values()]
    chosen: list[str | None] = [*(folders if is_log else folders[-1:])] or [None]
    return list(days), [piece for folder in chosen for piece in source.pieces(folder)]


def _change(pieces: Sequence[SourcePiece], **settings: Any) -> list[SourcePiece]:
    table = pieces[0].table.model_copy(update=settings)
    return [replace(piece, table=table) for piece in pieces]


def _profile(pieces: Sequence[SourcePiece], log: Callable[[str], None]) -> tuple[ColumnProfile, ...]:
    with map_rows(pieces[0].table, pieces, log) as rows:
        return tuple(profile_column(name, rows.column(name)) for name in rows.column_names)


def _find_layout(uri: str, name: str) -> SourceTable:
    """Returns a table with format and layout, judged by file endings and folders named ds=...; without any ending by the first file.

    It is JSON lines only without parquet and csv: a `schema.json` next to a table does not belong to it.
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
        chosen = find_format(fs, unnamed[0], f"{name}, {uri}") if unnamed else None
    if chosen is None:
        others = ", ".join(file.rpartition("/")[2] for file in names[:5]) or "nothing"
        remedy = "give a .parquet, .csv or .jsonl file, or a folder of them"
        raise SourceMissingError(Fault(f"{name}, {uri}", "parquet, csv or JSON lines files", others, remedy))
    plain = SourceTable(uri=uri, format=chosen)
    is_daily = not fs.isfile(path) and bool(open_folder(plain, name).days())
    return plain.model_copy(update={"layout": Layout.DS_FOLDERS}) if is_daily else plain
