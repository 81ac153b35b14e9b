"""Files of a source table: listed, opened, their schemas read, their rows yielded in blocks of bounded size.

Belongs here: fsspec, parquet and csv. Does not belong here: lines of JSON (`json_lines.py`), which columns are wanted
(`source_columns.py`) and the day of a row (`reader.py`).

Files of a folder are read in the order of their paths. Data files are those whose name has an ending of the format (`.parquet`,
`.pq`; `.csv`; `.jsonl`, `.ndjson`, `.json`; the texts also with `.gz`) or no ending; names that start with "_" or "." are skipped. CSV files are UTF-8 with one
header line and separated by commas. Every csv column arrives as text and only an empty field is null, because a type inferred from the first block can
be wrong for a later one. Without a comma in the header line its `;`, tab or `|` separates the fields.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.csv as pcsv
import pyarrow.parquet as pq

from dssm_assets.core.config.pipeline import FileFormat, SourceTable
from dssm_assets.core.errors import Fault, InputError, SchemaError
from dssm_assets.storage.files import check_names, decoding_errors
from dssm_assets.storage.locations import location_errors, open_location
from dssm_assets.storage.sources.json_lines import find_schema, read_blocks

BLOCK_ROWS: Final = 262_144
BLOCK_BYTES: Final = 16 * 2**20
ENDINGS: Final = {
    FileFormat.PARQUET: (".parquet", ".pq"),
    FileFormat.CSV: (".csv", ".csv.gz"),
    FileFormat.JSON: (".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz", ".json", ".json.gz"),
}
"""How names of data files end, by format."""
_PARQUET_MAGIC: Final = b"PAR1"
_OTHER_SEPARATORS: Final = (";", "\t", "|")
_QUOTED: Final = re.compile(r'"[^"]*"')
_HEADER_BYTES: Final = 1 << 20


class SourceMissingError(InputError):
    """A source table's file or folder does not exist, or holds no data files."""


@dataclass(frozen=True)
class SourceFolder:
    """A file or folder of a source table inside its filesystem."""

    fs: Any
    path: str
    format: FileFormat
    name: str
    uri: str

    @property
    def where(self) -> str:
        """Returns the location for error messages."""
        return f"table {self.name}, {self.uri}"


@dataclass(frozen=True)
class SourceFile:
    """One data file."""

    fs: Any
    path: str
    format: FileFormat
    name: str

    @property
    def where(self) -> str:
        """Returns the location for error messages."""
        return f"table {self.name}, file {self.path}"

    def schema(self) -> pa.Schema:
        """Returns the columns of the file; for CSV all of them text. JSON lines are read from start to end.

        Raises:
            SchemaError: if the file is broken, not of the configured format, or has two columns of one name.
        """
        parsing = self._parsing()
        with self._open() as handle:
            if self.format is FileFormat.PARQUET:
                schema = pq.ParquetFile(handle).schema_arrow.remove_metadata()
            elif self.format is FileFormat.JSON:
                schema = find_schema(handle, self.where)
            else:
                options = pcsv.ReadOptions(block_size=BLOCK_BYTES)
                names = pcsv.open_csv(handle, read_options=options, parse_options=parsing).schema.names
                schema = pa.schema([(name, pa.string()) for name in names])
            names = schema.names  # a name may not be UTF-8
        check_names(names, self.where)
        return schema

    def blocks(self, wanted: pa.Schema, wants: Callable[[Any], bool] = lambda _: True) -> Iterator[pa.Table]:
        """Yields some columns in blocks, in file order.

        Args:
            wanted: the columns. Their types count for JSON lines alone: a file's own, or wider ones.
            wants: skips parquet row groups by their metadata.
        """
        columns = wanted.names
        parsing = self._parsing()
        with self._open() as handle:
            if self.format is FileFormat.PARQUET:
                file = pq.ParquetFile(handle)
                groups = [index for index in range(file.num_row_groups) if wants(file.metadata.row_group(index))]
                batches = file.iter_batches(batch_size=BLOCK_ROWS, row_groups=groups, columns=columns)
            elif self.format is FileFormat.JSON:
                batches = read_blocks(handle, wanted)
            else:
                batches = pcsv.open_csv(
                    handle,
                    read_options=pcsv.ReadOptions(block_size=BLOCK_BYTES),
                    parse_options=parsing,
                    convert_options=pcsv.ConvertOptions(
                        column_types={name: pa.string() for name in columns},
                        include_columns=columns,
                        null_values=[""],
                        strings_can_be_null=True,
                    ),
                )
            for batch in batches:
                yield pa.Table.from_batches([batch]).select(columns)

    def separator(self) -> str:
        """Returns what separates the fields of a csv file: found in its header line, outside quotes."""
        with self._open() as handle:
            header = _QUOTED.sub("", handle.readline(_HEADER_BYTES).decode("utf-8", errors="replace"))
        separator = "," if "," in header else max(_OTHER_SEPARATORS, key=header.count)
        return separator if separator in header else ","

    def _parsing(self) -> pcsv.ParseOptions:
        if self.format is not FileFormat.CSV:
            return pcsv.ParseOptions()
        return pcsv.ParseOptions(delimiter=self.separator(), newlines_in_values=True)

    @contextmanager
    def _open(self) -> Iterator[Any]:
        """Opens the file and turns decoding errors into a SchemaError."""
        is_text = self.format is not FileFormat.PARQUET
        with self.fs.open(self.path, "rb") as plain:
            if is_text and plain.read(len(_PARQUET_MAGIC)) == _PARQUET_MAGIC:
                raise SchemaError(Fault(self.where, self._expected, "a parquet file", self._remedy))
        with (
            decoding_errors(self.where, self._expected, self._remedy),
            self.fs.open(self.path, "rb", compression="infer" if is_text else None) as handle,
        ):
            yield handle

    @property
    def _expected(self) -> str:
        return "JSON lines: an object per line" if self.format is FileFormat.JSON else f"a readable {self.format} file"

    @property
    def _remedy(self) -> str:
        again = {
            FileFormat.PARQUET: "write the file again",
            FileFormat.CSV: "write the file again in UTF-8",
            FileFormat.JSON: "write the file again in UTF-8 with an object per line, as jq -c '.[]' does with a list of objects",
        }
        return f"correct tables.{self.name.removesuffix('_table')}.format, or {again[self.format]}"


def open_folder(table: SourceTable, name: str) -> SourceFolder:
    """Returns the file or folder that a source table's uri names.

    Raises:
        InputError: if the place cannot be used.
        SourceMissingError: if there is no such file or folder.
    """
    key = f"tables.{name.removesuffix('_table')}.uri"
    remedy = f"correct {key}, install its package, or set its credentials"
    fs, path = open_location(table.uri, f"table {name}", table.storage_options, remedy)
    fs.invalidate_cache()
    folder = SourceFolder(fs, path, table.format, name, table.uri)
    with location_errors(table.uri, f"table {name}", remedy):
        exists = fs.exists(path)
    if not exists:
        raise SourceMissingError(
            Fault(folder.where, "a file or folder", "no such file or folder", f"write it, or correct {key}")
        )
    return folder


def list_files(folder: SourceFolder, path: str | None = None) -> list[SourceFile]:
    """Returns the data files of a folder (or of one of its subfolders), or the file itself, in the order of their paths.

    Raises:
        SourceMissingError: if there is none; names the files that there are.
    """
    start = folder.path if path is None else path
    if folder.fs.isfile(start):
        return [SourceFile(folder.fs, start, folder.format, folder.name)]
    found = sorted(folder.fs.find(start))
    chosen = [file for file in found if _is_data(file, start, folder.format)]
    if not chosen:
        others = ", ".join(posixpath.basename(file) for file in found[:5]) or "nothing"
        expected = f"files that end in {' or '.join(ENDINGS[folder.format])}"
        key = f"tables.{folder.name.removesuffix('_table')}"
        raise SourceMissingError(
            Fault(f"table {folder.name}, folder {start}", expected, others, f"correct {key}.format or {key}.uri")
        )
    return [SourceFile(folder.fs, file, folder.format, folder.name) for file in chosen]


def day_folders(folder: SourceFolder) -> dict[str, list[str]]:
    """Returns day (YYYY-MM-DD) -> the paths of its folders `ds=YYYY-MM-DD` and `ds=YYYYMMDD`, days ascending."""
    days: dict[str, list[str]] = {}
    if not folder.fs.isdir(folder.path):
        return days
    for entry in sorted(folder.fs.ls(folder.path, detail=False)):
        path = str(entry).rstrip("/")
        label = posixpath.basename(path)
        digits = label.removeprefix("ds=").replace("-", "")
        if label.startswith("ds=") and len(digits) == 8 and digits.isdigit() and folder.fs.isdir(path):
            days.setdefault(f"{digits[:4]}-{digits[4:6]}-{digits[6:]}", []).append(path)
    return dict(sorted(days.items()))


def is_hidden(path: str, start: str) -> bool:
    """Returns whether a file, or a folder between it and `start`, has a name that starts with "_" or "."."""
    return any(part.startswith(("_", ".")) for part in path[len(start) :].strip("/").split("/"))


def _is_data(path: str, start: str, file_format: FileFormat) -> bool:
    name = posixpath.basename(path[len(start) :])
    return not is_hidden(path, start) and (name.endswith(ENDINGS[file_format]) or "." not in name)
