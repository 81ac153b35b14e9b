"""The log of `source_formats.py` as a Delta and as an Iceberg table, with a file per day, as a daily ingestion writes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pyarrow as pa


def write_delta(log: Iterator[pa.Table], folder: Path) -> dict[str, Any]:
    """Writes the log as a Delta table; returns its keys in the configuration."""
    from deltalake import write_deltalake

    for rows in log:
        write_deltalake(folder / "delta", rows, mode="append")
    return {"uri": str(folder / "delta"), "format": "delta"}


def write_iceberg(log: Iterator[pa.Table], folder: Path) -> dict[str, Any]:
    """Writes the log as an Iceberg table of a catalog in SQLite; returns its keys in the configuration."""
    from pyiceberg.catalog import load_catalog

    options = {"type": "sql", "uri": f"sqlite:///{folder}/catalog.db", "warehouse": f"file://{folder}"}
    catalog = load_catalog("lake", **options)
    catalog.create_namespace("shop")
    for rows in log:
        catalog.create_table_if_not_exists("shop.log", rows.schema).append(rows)
    return {"uri": "lake", "format": "iceberg", "table": "shop.log", "storage_options": options}


LAKE_STORES: Final[Mapping[str, Callable[[Iterator[pa.Table], Path], dict[str, Any]]]] = {
    "delta": write_delta,
    "iceberg": write_iceberg,
}
