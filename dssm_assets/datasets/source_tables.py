"""The three source tables of a data set and their parquet files, shared by the loaders."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from dssm_assets.core.errors import Fault, InputError, SchemaError

ROW_GROUP_ROWS = 65_536
"""Small enough that the row group statistics of a log sorted by time separate days."""

NAMES = ("users", "items", "behavior")


class DatasetMissingError(InputError):
    """A data set does not exist at its path, or its package is not installed."""


@dataclass(frozen=True)
class SourceTables:
    """Raw users, items and behaviour, before normalisation."""

    users: pa.Table
    items: pa.Table
    behavior: pa.Table


def write_tables(tables: SourceTables, folder: Path) -> dict[str, int]:
    """Writes users.parquet, items.parquet and behavior.parquet; returns file name -> bytes. Equal tables give equal bytes.

    The files are staged and then moved into the folder, behavior.parquet last: if it exists, so do the others.
    """
    folder.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".writing-", dir=folder))
    sizes = {}
    try:
        for name in NAMES:
            path = staging / f"{name}.parquet"
            table = getattr(tables, name).replace_schema_metadata(None)
            pq.write_table(table, path, compression="zstd", row_group_size=ROW_GROUP_ROWS)
            sizes[path.name] = path.stat().st_size
        for name in NAMES:
            (staging / f"{name}.parquet").replace(folder / f"{name}.parquet")
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return sizes


def read_tables(folder: Path) -> SourceTables:
    """Returns the tables of a folder with users.parquet, items.parquet and behavior.parquet.

    Raises:
        DatasetMissingError: naming every file that is missing.
    """
    missing = [name for name in NAMES if not (folder / f"{name}.parquet").is_file()]
    if missing:
        raise DatasetMissingError(
            [Fault(f"file {folder / name}.parquet", "to exist", "no such file", "correct the path") for name in missing]
        )
    return SourceTables(*(pq.read_table(folder / f"{name}.parquet") for name in NAMES))


def require_columns(table: pa.Table, columns: Sequence[str], where: str) -> None:
    """Checks that a table has some columns.

    Raises:
        SchemaError: naming every column that is missing.
    """
    present = ", ".join(table.column_names)
    SchemaError.raise_if(
        Fault(f"{where}, column {name}", "the column to exist", f"columns {present}", "use the data set's own files")
        for name in columns
        if name not in table.column_names
    )


def sort_rows(table: pa.Table, first: Sequence[str]) -> pa.Table:
    """Returns a table sorted by some columns, then by all others, so that the order depends only on the rows."""
    rest = [name for name in table.column_names if name not in first]
    return table.sort_by([(name, "ascending") for name in [*first, *rest]])
