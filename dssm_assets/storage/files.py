"""Reads and writes tables outside the store, at any fsspec URL that a user names."""

from __future__ import annotations

import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Final

import pyarrow as pa
import pyarrow.csv as pcsv
import pyarrow.parquet as pq

from dssm_assets.core.config.section import repeated_names
from dssm_assets.core.errors import Fault, InputError, SchemaError
from dssm_assets.core.sources.convert import check_text
from dssm_assets.storage.local_files import is_local
from dssm_assets.storage.locations import location_errors, open_location

_ENDINGS: Final = (".parquet", ".pq")
Columns = Sequence[str] | Callable[[pa.Schema], Sequence[str]]


def read_parquet(uri: str, columns: Columns, where: str) -> pa.Table:
    """Returns the named columns of a parquet file. A folder's files are read in path order.

    If a column is missing, the result has all columns of the file and no rows.

    Args:
        uri: any fsspec URL or path.
        columns: names of columns, or a function that chooses among a file's columns.

    Raises:
        InputError: the file does not exist, or the folder has no parquet file.
        SchemaError: a file is broken, repeats a column name or has text that is not UTF-8; or the files' schemas differ.
    """
    fs, path = open_location(uri, where)
    with location_errors(uri, where):
        paths = [path] if fs.isfile(path) else [file for file in list_files(fs, path) if file.endswith(_ENDINGS)]
        if not paths:
            got = "a folder without parquet files" if fs.exists(path) else "no such file or folder"
            raise InputError(Fault(f"{where}, {uri}", "a parquet file or a folder of them", got, "correct the path"))
    with decoding_errors(f"{where}, {uri}", "readable parquet files of one schema", "write the files again"):
        return pa.concat_tables([_read(fs, file, columns, f"{where}, {file}") for file in paths])


def list_files(fs: Any, path: str) -> list[str]:
    """Returns the paths of all files below a folder, ascending. A file is its own list.

    Raises:
        OSError: the folder is `/`.
    """
    if is_local(fs) and not path.strip("/"):
        raise OSError("the root folder: name the table's own folder")
    return sorted(map(str, fs.find(path)))


def check_file(fs: Any, path: str) -> None:
    """Raises an OSError if a local path is no regular file, such as a pipe (it may never end) or a dangling link."""
    if is_local(fs) and fs.info(path)["type"] != "file":
        raise OSError(f"{path} is not a regular file")


@contextmanager
def decoding_errors(where: str, expected: str, remedy: str) -> Iterator[None]:
    """Replaces the errors that readers raise for broken bytes by a SchemaError.

    Raises:
        SchemaError: in place of errors of Arrow, of decompression, and of text that is not UTF-8.
    """
    try:
        yield
    except (pa.ArrowException, OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, UnicodeError) as error:
        got = (str(error).splitlines() or [type(error).__name__])[0]
        raise SchemaError(Fault(where, expected, got, remedy)) from error


def check_names(names: Sequence[str], where: str) -> None:
    """Checks that column names of a file are distinct.

    Raises:
        SchemaError: names the repeated columns.
    """
    if repeated := repeated_names(names):
        raise SchemaError(Fault(where, "columns with different names", f"several columns named {repeated}", "rename them"))


def _read(fs: Any, path: str, columns: Columns, where: str) -> pa.Table:
    check_file(fs, path)
    with fs.open(path, "rb") as handle:
        file = pq.ParquetFile(handle)
        check_names(file.schema_arrow.names, where)
        names = columns(file.schema_arrow) if callable(columns) else columns
        if not set(names) <= set(file.schema_arrow.names):  # the caller's error names the existing columns
            return file.schema_arrow.remove_metadata().empty_table()
        table = file.read(columns=list(names)).replace_schema_metadata(None)
        for name in names:
            check_text(table.column(name), f"{where}, column {name}")
        return table


class TableWriter:
    """Writes tables with one schema to a parquet or csv file. Removes the file after a failure."""

    def __init__(self, uri: str, *, has_lists: bool = False) -> None:
        """Prepares to write to a path or fsspec URL that ends in .parquet, .pq, or .csv (for tables without lists).

        Raises:
            InputError: the path has another ending.
        """
        self.uri = uri
        self._is_csv = uri.endswith(".csv") and not has_lists
        if not self._is_csv and not uri.endswith(_ENDINGS):
            expected = f"a name that ends in {' or '.join(_ENDINGS if has_lists else (*_ENDINGS, '.csv'))}"
            raise InputError(Fault(f"output {uri}", expected, "another ending", "rename it"))
        self._fs, self._path = open_location(uri, "output")
        self._handle: Any = None
        self._writer: Any = None

    def write(self, table: pa.Table) -> None:
        """Appends a table.

        Raises:
            InputError: the file cannot be written.
        """
        if self._writer is None:
            with location_errors(self.uri, "output"):
                self._fs.makedirs(self._path.rpartition("/")[0] or "/", exist_ok=True)
                self._handle = self._fs.open(self._path, "wb")
            writer_type = pcsv.CSVWriter if self._is_csv else pq.ParquetWriter
            self._writer = writer_type(self._handle, table.schema)
        self._writer.write_table(table)

    def __enter__(self) -> TableWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._writer is None:
            return
        self._writer.close()
        self._handle.close()
        if kind is not None:
            self._fs.rm(self._path)
