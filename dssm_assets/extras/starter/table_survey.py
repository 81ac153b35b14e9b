"""A survey of an unknown table: format, layout and encoding of its files, and a profile of each column.

Belongs here: finding format and layout, reading blocks for the profiles. Does not belong here: the roles of columns
(`extras/starter/column_roles.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from dssm_assets.core.config.pipeline import FileFormat, Layout, SourceTable
from dssm_assets.core.errors import Fault, SchemaError
from dssm_assets.extras.starter.column_roles import ColumnProfile, ProfileBuilder, unnamed_columns
from dssm_assets.storage.locations import location_errors, open_location
from dssm_assets.storage.sources.source_columns import csv_types, plan_files
from dssm_assets.storage.sources.source_files import (
    ENDINGS,
    SourceFile,
    SourceMissingError,
    day_folders,
    find_format,
    is_hidden,
    list_files,
    open_folder,
)
from dssm_assets.storage.sources.text_files import find_eight_bit


@dataclass(frozen=True)
class TableSurvey:
    """The result of a survey.

    Attributes:
        table: location, format, layout, names of columns without a header line, encoding and decimal mark; no columns are mapped.
        columns: profiles of its columns, in order.
        days: its day folders, ascending; empty for other layouts.
    """

    table: SourceTable
    columns: tuple[ColumnProfile, ...]
    days: tuple[str, ...] = field(default=())

    @property
    def rows(self) -> int:
        """Returns the number of rows that were read."""
        return self.columns[0].rows if self.columns else 0


def survey_table(uri: str, name: str, *, is_log: bool) -> TableSurvey:
    """Returns the survey of a table: of day folders the last one is read, of a log all of them.

    Raises:
        SourceMissingError: if there is no file of a known format.
        SchemaError: if the files have incompatible schemas.
    """
    table = _find_layout(uri, name)
    folder = open_folder(table, name)
    days = day_folders(folder) if table.layout is Layout.DS_FOLDERS else {}
    parts: list[str | None] = [paths[0] for paths in days.values()]
    chosen = (parts if is_log else parts[-1:]) or [None]
    files = [file for part in chosen for file in list_files(folder, part)]
    if table.format is FileFormat.CSV and (count := files[0].count_unnamed()):
        table, files = _with(files, column_names=unnamed_columns(count))
    try:
        profiles = _profiles(table, files)
    except SchemaError:
        encoding = find_eight_bit(files[0].fs, [file.path for file in files], f"{name}, {uri}")
        if table.format is FileFormat.PARQUET or encoding is None:
            raise
        table, files = _with(files, encoding=encoding)
        profiles = _profiles(table, files)
    is_comma = any(column.has_decimal_comma for column in profiles) and table.format is FileFormat.CSV
    if is_comma and files[0].csv_shape().separator != ",":
        table, files = _with(files, decimal_mark=",")
        profiles = _profiles(table, files)
    return TableSurvey(table, tuple(profiles), tuple(days))


def _with(files: list[SourceFile], **settings: Any) -> tuple[SourceTable, list[SourceFile]]:
    """Returns the table of some files with other settings, and its files."""
    table = files[0].table.model_copy(update=settings)
    return table, [replace(file, table=table) for file in files]


def read_columns(survey: TableSurvey, columns: list[str]) -> Iterator[pa.Table]:
    """Yields some columns of a surveyed user or item table in blocks: of day folders those of the last one."""
    folder = open_folder(survey.table, "table")
    part = day_folders(folder)[survey.days[-1]][0] if survey.days else None
    for block in _blocks(survey.table, list_files(folder, part)):
        yield block.select(columns)


def _blocks(table: SourceTable, files: list[SourceFile]) -> Iterator[pa.Table]:
    """Yields all rows of some files in blocks, csv columns as text."""
    for plan in plan_files(table, files):
        yield from plan.blocks()


def _profiles(table: SourceTable, files: list[SourceFile]) -> list[ColumnProfile]:
    types = csv_types(table, plan_files(table, files))
    if table.format is FileFormat.CSV:
        for block in _blocks(table, files):
            types.observe(block)
    builders: dict[str, ProfileBuilder] = {}
    for block in _blocks(table, files):
        typed = types.apply(block)
        for name in typed.column_names:
            builders.setdefault(name, ProfileBuilder(name)).observe(typed.column(name))
    if not builders:
        return [ProfileBuilder(name).profile() for name in plan_files(table, files)[0].schema.names]
    return [builder.profile() for builder in builders.values()]


def _find_layout(uri: str, name: str) -> SourceTable:
    """Returns a table with format and layout, judged by file endings and folders named ds=...

    It is JSON lines only without parquet and csv: a `schema.json` next to a table is no part of it.
    """
    fs, path = open_location(uri, name)
    with location_errors(uri, name):
        exists = fs.exists(path)
    if not exists:
        raise SourceMissingError(Fault(f"{name}, {uri}", "a file or folder", "no such file or folder", "correct the path"))
    names = [path] if fs.isfile(path) else sorted(map(str, fs.find(path)))
    shown = [found for found in names if not is_hidden(found, path)]
    counts = {form: sum(found.endswith(endings) for found in shown) for form, endings in ENDINGS.items()}
    chosen = max(counts, key=lambda form: (counts[form] and form is not FileFormat.JSON, counts[form]))
    if fs.isfile(path) and not counts[chosen] and (found := find_format(fs, path, f"{name}, {uri}")) is not None:
        return SourceTable(uri=uri, format=found)
    if not counts[chosen]:
        others = ", ".join(found.rpartition("/")[2] for found in names[:5]) or "nothing"
        remedy = "give a .parquet, .csv or .jsonl file, or a folder of them"
        raise SourceMissingError(Fault(f"{name}, {uri}", "parquet, csv or JSON lines files", others, remedy))
    plain = SourceTable(uri=uri, format=chosen)
    is_daily = not fs.isfile(path) and bool(day_folders(open_folder(plain, name)))
    return plain.model_copy(update={"layout": Layout.DS_FOLDERS}) if is_daily else plain
