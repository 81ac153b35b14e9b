"""The three source tables of a data set and their parquet files, shared by the loaders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from dssm_assets.core.errors import InputError
from dssm_assets.storage.local_files import ScratchFolder

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


def write_tables(tables: SourceTables, folder: Path) -> None:
    """Writes users.parquet, items.parquet and behavior.parquet. Equal tables give equal bytes.

    The files are staged and then moved into the folder, behavior.parquet last: if it exists, so do the others.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with ScratchFolder("tables", folder) as staging:
        for name in NAMES:
            table = getattr(tables, name).replace_schema_metadata(None)
            pq.write_table(table, staging / f"{name}.parquet", compression="zstd", row_group_size=ROW_GROUP_ROWS)
        for name in NAMES:
            (staging / f"{name}.parquet").replace(folder / f"{name}.parquet")


def sort_rows(table: pa.Table, first: Sequence[str]) -> pa.Table:
    """Returns a table sorted by some columns, then by all others, so that the order depends only on the rows."""
    rest = [name for name in table.column_names if name not in first]
    return table.sort_by([(name, "ascending") for name in [*first, *rest]])
