"""Opens a source table: lists files, reads schemas, yields rows in blocks of limited size. Extras open other tables.

Belongs here: fsspec, parquet and csv. Does not belong here: encodings and separators (`text_files.py`), JSON lines
(`json_lines.py`), the choice of columns (`source_columns.py`), and the day of a row (`reader.py`).

Files of a folder are read in the order of their paths. A data file's name has an ending of the format (`ENDINGS`) or no
ending, and does not start with "_" or ".". A single file may have any name. Every csv column is read as text, because a type
inferred from the first block can be wrong for a later block.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import posixpath
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import duckdb
import pyarrow as pa
import pyarrow.csv as pcsv
import pyarrow.parquet as pq

from dssm_assets.core.config.pipeline import FileFormat, SourceTable
from dssm_assets.core.errors import Fault, SchemaError
from dssm_assets.installed_extras import load_extra
from dssm_assets.storage.files import check_file, check_names, decoding_errors, list_files
from dssm_assets.storage.local_files import ScratchFolder
from dssm_assets.storage.locations import location_errors, open_location
from dssm_assets.storage.sources.json_lines import JsonColumns, Kind, find_kinds, read_json_blocks
from dssm_assets.storage.sources.source import DayBounds, Source, SourceMissingError, SourcePiece, SourceState, find_day
from dssm_assets.storage.sources.text_files import (
    COMPRESSIONS,
    CsvShape,
    copy_text,
    find_csv_shape,
    open_bytes,
    read_head,
)

BLOCK_ROWS: Final = 262_144
BLOCK_BYTES: Final = 16 * 2**20
ENDINGS: Final = {
    FileFormat.PARQUET: (".parquet", ".pq"),
    FileFormat.CSV: tuple(f"{text}{packed}" for text in (".csv", ".tsv") for packed in COMPRESSIONS),
    FileFormat.JSON: tuple(f"{text}{packed}" for text in (".jsonl", ".ndjson", ".json") for packed in COMPRESSIONS),
}
"""Format -> endings of the names of data files."""
READERS: Final = {
    FileFormat.SQL: ("databases", "sql_source"),
    FileFormat.DELTA: ("lakehouses", "delta_source"),
    FileFormat.ICEBERG: ("lakehouses", "iceberg_source"),
}
"""Format -> the extra and its module with `open_source(table, name)`."""
NULLS: Final = ["", "NULL", "\\N"]
"""Fields of csv files that stand for a missing value; dumps of databases write them. NA and nan may be texts."""
PARQUET_MAGIC: Final = b"PAR1"


@dataclass(frozen=True)
class SourceFile(SourcePiece):
    """One data file. A JSON file also knows the columns of all files."""

    source: SourceFolder
    json: JsonColumns | None = None

    @property
    def where(self) -> str:
        return f"table {self.source.name}, file {self.path}"

    def schema(self) -> pa.Schema:
        """Returns the columns of a file. Columns of a csv file are text. See `SourcePiece.schema`."""
        if self.source.table.format is FileFormat.PARQUET:
            with self._open_parquet() as handle:
                schema = pq.ParquetFile(handle).schema_arrow.remove_metadata()
                names = schema.names  # a name may not be UTF-8
        else:
            with self._open_csv(None) as reader:
                names = reader.schema.names
            schema = pa.schema([(name, pa.string()) for name in names])
        check_names(names, self.where)
        return schema

    def json_kinds(self) -> Kind:
        """Reads a whole JSON file. Returns key -> type."""
        with self._copy_text() as path:
            return find_kinds(path, self.where)

    def blocks(self, columns: list[str], days: DayBounds | None = None) -> Iterator[pa.Table]:
        """Yields some columns in blocks, in file order. Parquet row groups without wanted days are skipped."""
        if self.source.table.format is FileFormat.PARQUET:
            with self._open_parquet() as handle:
                file = pq.ParquetFile(handle)
                groups = [index for index in range(file.num_row_groups) if _may_hold(file.metadata.row_group(index), days)]
                yield from _tables(file.iter_batches(batch_size=BLOCK_ROWS, row_groups=groups, columns=columns), columns)
        elif self.json is None:
            with self._open_csv(columns) as reader:
                yield from _tables(reader, columns)
        elif columns:
            with self._copy_text() as path:
                yield from _tables(read_json_blocks(path, self.json, columns), columns)

    def estimate_rows(self) -> int | None:
        """Estimates the rows of a text by its first lines. Parquet files tell it; None for a compressed text."""
        if self.source.table.format is FileFormat.PARQUET:
            with self._open_parquet() as handle:
                return int(pq.ParquetFile(handle).metadata.num_rows)
        if self.path.endswith(COMPRESSIONS[1:]):
            return None
        head, size = self.read_head(), self.source.fs.info(self.path)["size"] or 0
        return round(size * head.count("\n") / max(1, len(head.encode(self.source.table.encoding or "utf-8", "replace"))))

    def newest(self, column: str) -> Any:
        """Returns the largest value of a column from parquet's statistics, None without statistics."""
        if self.source.table.format is not FileFormat.PARQUET:
            return None
        with self._open_parquet() as handle:
            metadata = pq.ParquetFile(handle).metadata
        bounds = [_column_bounds(metadata.row_group(index), column) for index in range(metadata.num_row_groups)]
        return max((last for _, last in filter(None, bounds)), default=None) if all(bounds) else None

    def state(self) -> tuple[str, int | None, int | None]:
        """Returns path, size and modification time (unix milliseconds, None if the store does not tell)."""
        info = self.source.fs.info(self.path)
        modified = info.get("mtime") or info.get("LastModified") or info.get("last_modified") or info.get("created")
        seconds = modified.timestamp() if isinstance(modified, dt.datetime) else modified
        return self.path, info.get("size"), None if seconds is None else round(float(seconds) * 1000)

    def csv_shape(self) -> CsvShape:
        """Returns the separator and quotes of a csv file, judged by its first lines."""
        names = self.source.table.column_names
        return find_csv_shape(self.read_head(), None if names is None else len(names))

    def read_head(self) -> str:
        """Returns the first lines of a text file."""
        with self._reading(), self._open_text() as handle:
            return read_head(handle, self.source.table.encoding)

    @contextmanager
    def _open_parquet(self) -> Iterator[Any]:
        with self._reading():
            check_file(self.source.fs, self.path)
            with self.source.fs.open(self.path, "rb") as handle:
                yield handle

    @contextmanager
    def _open_csv(self, columns: list[str] | None) -> Iterator[pcsv.CSVStreamingReader]:
        shape = self.csv_shape()
        with self._copy_text(shape.separator) as path:
            yield pcsv.open_csv(
                str(path),
                read_options=pcsv.ReadOptions(block_size=BLOCK_BYTES, column_names=self.source.table.column_names),
                parse_options=pcsv.ParseOptions(
                    delimiter=shape.delimiter,
                    quote_char='"' if shape.has_quotes else False,
                    newlines_in_values=shape.has_quotes,
                ),
                convert_options=pcsv.ConvertOptions(
                    column_types=dict.fromkeys(columns or [], pa.string()),
                    include_columns=columns,
                    null_values=NULLS,
                    strings_can_be_null=True,
                ),
            )

    @contextmanager
    def _copy_text(self, separator: str | None = None) -> Iterator[Path]:
        """Yields a local copy in UTF-8, with a separator of one character. Removes it afterwards."""
        with ScratchFolder("text") as folder, self._reading():
            path = folder / "text"
            with self._open_text() as handle:
                copy_text(handle, path, self.source.table.encoding, separator, self.where, f"{self.source.key}.encoding")
            yield path

    @contextmanager
    def _open_text(self) -> Iterator[Any]:
        check_file(self.source.fs, self.path)
        with self.source.fs.open(self.path, "rb") as plain:
            if plain.read(len(PARQUET_MAGIC)) == PARQUET_MAGIC:
                raise SchemaError(Fault(self.where, self._expected, "a parquet file", self._remedy))
        with open_bytes(self.source.fs, self.path, self.where) as handle:
            yield handle

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            with decoding_errors(self.where, self._expected, self._remedy):
                yield
        except duckdb.Error as error:
            got = re.sub(r'^.*?Error: | in file ".*?",', "", str(error).splitlines()[0]).strip(" .")
            raise SchemaError(Fault(self.where, self._expected, got, self._remedy)) from error

    @property
    def _expected(self) -> str:
        is_json = self.source.table.format is FileFormat.JSON
        return "JSON lines: an object per line" if is_json else f"a readable {self.source.table.format} file"

    @property
    def _remedy(self) -> str:
        again = "correct those lines" if self.source.table.format is FileFormat.CSV else "write the file again"
        return f"correct {self.source.key}.format, or {again}"


@dataclass(frozen=True)
class SourceFolder(Source):
    """A file or folder inside its filesystem."""

    fs: Any
    path: str

    @property
    def where(self) -> str:
        return f"table {self.name}, {self.table.uri}"

    def days(self) -> dict[str, list[str]]:
        """Returns day (YYYY-MM-DD) -> the paths of its folders `ds=YYYY-MM-DD` and `ds=YYYYMMDD`, days ascending."""
        days: dict[str, list[str]] = {}
        with location_errors(self.table.uri, f"table {self.name}"):
            for entry in sorted(self.fs.ls(self.path, detail=False)) if self.fs.isdir(self.path) else ():
                path = str(entry).rstrip("/")
                label = posixpath.basename(path)
                day = find_day(label.removeprefix("ds=")) if label.startswith("ds=") else None
                if day is not None and self.fs.isdir(path):
                    days.setdefault(day, []).append(path)
        return dict(sorted(days.items()))

    def pieces(self, folder: str | None = None) -> list[SourceFile]:
        """Returns the data files below the source's folder (or below `folder`), in the order of their paths; or the single file."""
        start = self.path if folder is None else folder
        if self.fs.isfile(start):
            return [SourceFile(self, start)]
        with location_errors(self.table.uri, f"table {self.name}"):
            found = list_files(self.fs, start)
        names = [(path, posixpath.basename(path)) for path in found if not is_hidden(path, start)]
        chosen = [path for path, name in names if name.endswith(ENDINGS[self.table.format]) or "." not in name]
        if not chosen:
            others = ", ".join(posixpath.basename(path) for path in found[:5]) or "nothing"
            expected = f"files that end in {' or '.join(ENDINGS[self.table.format])}"
            remedy = f"correct {self.key}.format or {self.key}.uri"
            raise SourceMissingError(Fault(f"table {self.name}, folder {start}", expected, others, remedy))
        return [SourceFile(self, path) for path in chosen]

    def state(self, folder: str | None = None) -> SourceState:
        """Returns the digest of the files' paths, sizes and modification times, with the newest modification time."""
        pieces = self.pieces(folder)
        with location_errors(self.table.uri, f"table {self.name}"):
            files = [file.state() for file in pieces]
        written_ms = max((modified for _, _, modified in files if modified is not None), default=None)
        return SourceState(hashlib.sha256(repr(files).encode()).hexdigest(), written_ms)

    def has_marker(self, folder: str, marker: str) -> bool:
        return bool(self.fs.exists(posixpath.join(folder, marker)))


def open_source(table: SourceTable, name: str) -> Source:
    """Opens a source table.

    Raises:
        InputError: the location cannot be used.
        SourceMissingError: the table does not exist.
        ConfigError: the extra for the table's format is not installed.
    """
    if table.format in READERS:
        source: Source = load_extra(*READERS[table.format]).open_source(table, name)
        return source
    remedy = f"correct tables.{name.removesuffix('_table')}.uri, install its package, or set its credentials"
    fs, path = open_location(table.uri, f"table {name}", table.storage_options, remedy)
    fs.invalidate_cache()
    folder = SourceFolder(table, name, fs, path)
    with location_errors(table.uri, f"table {name}", remedy):
        exists = fs.exists(path)
    if not exists:
        remedy = f"write it, or correct {folder.key}.uri"
        raise SourceMissingError(Fault(folder.where, "a file or folder", "no such file or folder", remedy))
    return folder


def is_hidden(path: str, start: str) -> bool:
    """Returns whether a name below `start` on the path of a file starts with "_" or "."."""
    return any(part.startswith(("_", ".")) for part in path[len(start) :].strip("/").split("/"))


def _tables(batches: Iterable[pa.RecordBatch], columns: list[str]) -> Iterator[pa.Table]:
    return (pa.Table.from_batches([batch]).select(columns) for batch in batches)


def _may_hold(group: Any, days: DayBounds | None) -> bool:
    bounds = None if days is None else _column_bounds(group, days.column)
    return days is None or bounds is None or days.may_hold(*bounds)


def _column_bounds(group: Any, column: str) -> tuple[Any, Any] | None:
    """Returns the smallest and the largest value of a column in a parquet row group, None without statistics."""
    chunks = [group.column(index) for index in range(group.num_columns)]
    statistics = next((chunk.statistics for chunk in chunks if chunk.path_in_schema == column), None)
    with suppress(OverflowError, ValueError):  # Python has no times beyond year 9999
        return (statistics.min, statistics.max) if statistics is not None and statistics.has_min_max else None
    return None
