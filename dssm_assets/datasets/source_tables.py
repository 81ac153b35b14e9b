"""The three source tables of a data set, and their files.

Belongs here: what every data set module shares. Does not belong here: any one data set.
"""

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
"""Small enough that the statistics of a log sorted by time single out a few days."""

NAMES = ("users", "items", "behavior")


class DatasetMissingError(InputError):
    """A data set is not where it was said to be, or its package is not installed."""


@dataclass(frozen=True)
class SourceTables:
    """Users, items and behaviour as a source would hold them, before normalisation."""

    users: pa.Table
    items: pa.Table
    behavior: pa.Table


def write_tables(tables: SourceTables, folder: Path) -> dict[str, int]:
    """Writes users.parquet, items.parquet and behavior.parquet; returns file name -> bytes. Equal tables give equal bytes.

    The files are written aside, then each is moved into place, behavior.parquet last: where it is, the others are.
    """
    folder.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=".writing-", dir=folder))
    sizes = {}
    try:
        for name in NAMES:
            path = aside / f"{name}.parquet"
            table = getattr(tables, name).replace_schema_metadata(None)
            pq.write_table(table, path, compression="zstd", row_group_size=ROW_GROUP_ROWS)
            sizes[path.name] = path.stat().st_size
        for name in NAMES:
            (aside / f"{name}.parquet").replace(folder / f"{name}.parquet")
    finally:
        shutil.rmtree(aside, ignore_errors=True)
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
    there = ", ".join(table.column_names)
    faults = [
        Fault(f"{where}, column {name}", "the column to exist", f"columns {there}", "use the data set's own files")
        for name in columns
        if name not in table.column_names
    ]
    if faults:
        raise SchemaError(faults)


def sort_rows(table: pa.Table, first: Sequence[str]) -> pa.Table:
    """Returns a table sorted by some columns, then by all others, so that the order depends on the rows alone."""
    rest = [name for name in table.column_names if name not in first]
    return table.sort_by([(name, "ascending") for name in [*first, *rest]])
