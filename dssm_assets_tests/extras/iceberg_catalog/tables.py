"""Small published tables, and what several readers see of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
from pyiceberg.table import Table

from dssm_assets.core.schema import TableSpec
from dssm_assets.extras.iceberg_catalog.published_tables import DAY, PublishedTables
from dssm_assets.steps.workspace import Workspace, open_workspace
from dssm_assets.stored import open_table
from dssm_assets_tests import worlds

ASSET = "user_all_feature"
ROOT = Path("home") / "tables"


def open_published(folder: Path, changes: Mapping[str, Any] | None = None) -> tuple[Workspace, PublishedTables]:
    """Returns the workspace of an empty store whose table ASSET is published."""
    storage = {"iceberg": {"tables": [ASSET]}, **(changes or {}).get("storage", {})}
    workspace = open_workspace(worlds.write_config(folder, {**(changes or {}), "storage": storage}))
    return workspace, PublishedTables(workspace)


def put(workspace: Workspace, ds: str, values: Sequence[Any], /, **columns: pa.Array) -> None:
    """Publishes a day whose rows have the values as `user_id`."""
    table = pa.table({"user_id": pa.array(values), **columns})
    workspace.tables.write(TableSpec(ASSET, "one row per user", ("user_id",), ()), ds, table)


def find_table(published: PublishedTables, asset: str = ASSET) -> Table:
    with published.open_catalog() as catalog:
        return catalog.load_table((published.loaded.config.name, asset))


def users(table: Table, **scan: Any) -> dict[str, list[Any]]:
    """Returns day -> user ids, of the current snapshot or another one."""
    found: dict[str, list[Any]] = {}
    for row in table.scan(**scan).to_arrow().to_pylist():
        found.setdefault(row[DAY], []).append(row["user_id"])
    return {ds: sorted(ids) for ds, ids in sorted(found.items())}


def assert_read_alike(published: PublishedTables, asset: str) -> None:
    """Checks that pyiceberg, DuckDB and Polars read every stored day as `open_table` does, and no other one."""
    table, loaded = find_table(published, asset), published.loaded
    days = published.store.days(asset)
    stored = {ds: open_table(asset, ds, config=loaded.path, home=loaded.home) for ds in days}
    counts = {ds: one.manifest.rows for ds, one in stored.items() if one.manifest.rows}
    connection = table.scan().to_duckdb("published")
    assert dict(connection.sql(f"select {DAY}, count(*) from published group by 1").fetchall()) == counts
    assert table.scan().count() == sum(counts.values())
    read_by_polars = pl.scan_iceberg(table, reader_override="pyiceberg").collect()
    assert len(read_by_polars) == sum(counts.values())
    for ds in counts:
        names = list(stored[ds].columns)
        expected = stored[ds].to_arrow().to_pylist()
        day = table.scan(f"{DAY} == '{ds}'").to_arrow()
        assert set(day[DAY].to_pylist()) == {ds}
        assert day.select(names).to_pylist() == expected
        shown = connection.sql(f"select {', '.join(names)} from published where {DAY} = '{ds}'")
        assert shown.fetchall() == [tuple(row.values()) for row in expected]
        assert read_by_polars.filter(pl.col(DAY) == ds).select(names).to_dicts() == expected


def files(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Returns path -> inode, time and bytes, of the files of partitions: all below a root but metadata and manifests."""
    paths = [path for path in folder.rglob("*.parquet") if "_iceberg" not in path.parts]
    return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns, path.stat().st_size) for path in paths}
