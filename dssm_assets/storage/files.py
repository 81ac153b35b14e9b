"""Parquet files of anybody's making, read and written at any fsspec URL.

Belongs here: opening and decoding. Does not belong here: what the tables must hold (`core/`), source tables with their
layouts (`source_files.py`), our own partitions (`table_store.py`).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import fsspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv as pcsv
import pyarrow.parquet as pq

from dssm_assets.core.errors import Fault, InputError, SchemaError

_ENDINGS = (".parquet", ".pq")


def read_parquet(uri: str, columns: Sequence[str], where: str) -> pa.Table:
    """Returns those of the named columns that a parquet file, or the parquet files of a folder in path order, have.

    Args:
        uri: any fsspec URL or path.
        columns: the columns of interest; which of them must be there is for the caller to check.
        where: what to call the file in errors.

    Raises:
        InputError: if there is no such file, or no parquet file in the folder.
        SchemaError: if a file is no parquet file, or files of the folder have other columns.
    """
    fs, path = fsspec.core.url_to_fs(uri)
    try:
        paths = [path] if fs.isfile(path) else sorted(file for file in fs.find(path) if file.endswith(_ENDINGS))
    except OSError as error:
        raise InputError(Fault(f"{where}, {uri}", "a place that can be read", str(error), "correct the path")) from error
    if not paths:
        got = "a folder without any" if fs.exists(path) else "no such file or folder"
        raise InputError(Fault(f"{where}, {uri}", "a parquet file or a folder of them", got, "correct the path"))
    try:
        tables = [_read(fs, file, columns) for file in paths]
        return pa.concat_tables(tables)
    except pa.ArrowException as error:
        got = str(error).splitlines()[0]
        raise SchemaError(Fault(f"{where}, {uri}", "readable parquet files of one schema", got, "write them again")) from error


def _read(fs: Any, path: str, columns: Sequence[str]) -> pa.Table:
    with fs.open(path, "rb") as handle:
        file = pq.ParquetFile(handle)
        there = [name for name in columns if name in file.schema_arrow.names]
        if there:
            return file.read(columns=there).replace_schema_metadata(None)
        # Nothing of interest: the names of what is there make the complaint.
        return file.schema_arrow.remove_metadata().empty_table()


class TableWriter:
    """Writes tables of one schema to a parquet or csv file as they come; what failed half way is not left behind."""

    def __init__(self, uri: str, *, has_lists: bool = False) -> None:
        """Takes where to write: any fsspec URL or path that ends in .parquet or .pq, or .csv for tables without lists.

        Raises:
            InputError: if it ends otherwise.
        """
        self.uri = uri
        self._is_csv = uri.endswith(".csv") and not has_lists
        if not self._is_csv and not uri.endswith(_ENDINGS):
            expected = f"a name that ends in {' or '.join(_ENDINGS if has_lists else (*_ENDINGS, '.csv'))}"
            raise InputError(Fault(f"output {uri}", expected, "another ending", "rename it"))
        self._fs, self._path = fsspec.core.url_to_fs(uri)
        self._handle: Any = None
        self._writer: Any = None

    def write(self, table: pa.Table) -> None:
        """Appends a table.

        Raises:
            InputError: if the file cannot be written.
        """
        if self._writer is None:
            try:
                self._fs.makedirs(self._fs._parent(self._path), exist_ok=True)
                self._handle = self._fs.open(self._path, "wb")
            except OSError as error:
                raise InputError(
                    Fault(f"output {self.uri}", "a place that can be written", str(error), "correct the path")
                ) from error
            made = pcsv.CSVWriter if self._is_csv else pq.ParquetWriter
            self._writer = made(self._handle, table.schema)
        self._writer.write_table(table)

    def __enter__(self) -> TableWriter:
        """Returns itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Closes the file; removes it after a failure."""
        if self._writer is None:
            return
        self._writer.close()
        self._handle.close()
        if kind is not None:
            self._fs.rm(self._path)


def write_arrow(path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> int:
    """Writes an uncompressed Arrow IPC file; returns its number of rows. One batch is held at a time."""
    rows = 0
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
            rows += batch.num_rows
    return rows


def write_arrow_table(path: Path, table: pa.Table) -> int:
    """Writes a table as an Arrow IPC file of one batch; returns its number of rows."""
    return write_arrow(path, table.schema, table.combine_chunks().to_batches())


class ScratchArrays:
    """Makes arrays mapped from files: their pages are the system's to write back and to drop when memory is short."""

    def __init__(self, folder: Path) -> None:
        """Takes an existing local folder; files in it are named `array-N`."""
        self._folder = folder
        self._count = 0

    def __call__(self, length: int, kind: Any) -> npt.NDArray[Any]:
        """Returns room for so many numbers of a kind, zeros at first."""
        if not length:  # an empty file cannot be mapped
            return np.empty(0, kind)
        return np.memmap(self._next(), dtype=kind, mode="w+", shape=(length,))

    def concat(self, parts: Iterable[npt.NDArray[Any]], kind: Any) -> npt.NDArray[Any]:
        """Returns parts one after the other as one array, which may not be written to; one part is held at a time."""
        path, length = self._next(), 0
        with path.open("wb") as file:
            for part in parts:
                file.write(np.ascontiguousarray(part, kind).data)
                length += len(part)
        return ScratchFile(path, np.dtype(kind).str, length).open()

    def _next(self) -> Path:
        self._count += 1
        return self._folder / f"array-{self._count}"


@dataclass(frozen=True)
class ScratchFile:
    """An array in a file, by what another process of this machine needs to open it."""

    path: Path
    kind: str
    length: int

    @classmethod
    def from_array(cls, array: npt.NDArray[Any]) -> ScratchFile:
        """Returns the file of an array, or of the beginning of one, that `ScratchArrays` made."""
        if not len(array):
            return cls(Path(), array.dtype.str, 0)
        if not isinstance(array, np.memmap) or array.filename is None:
            raise TypeError(f"an array of ScratchArrays, got {type(array).__name__}")
        return cls(Path(array.filename), array.dtype.str, len(array))

    def open(self) -> npt.NDArray[Any]:
        """Returns the array, to be read."""
        if not self.length:
            return np.empty(0, self.kind)
        return np.memmap(self.path, dtype=self.kind, mode="r", shape=(self.length,))


def write_atomic(path: Path, chunks: Iterable[bytes]) -> None:
    """Writes a file, or leaves the one that stood there; its folder is made where it is missing.

    Several writers of one file do not disturb each other: the last one's is what stands.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f"._{path.stem}-")
    aside = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(handle, 0o644)  # mkstemp's files are readable by their owner alone
            file.writelines(chunks)
            file.flush()
            os.fsync(handle)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
