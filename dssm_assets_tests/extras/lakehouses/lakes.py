"""Delta and Iceberg tables for tests: written, changed and made again in the same way."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pyarrow as pa
from deltalake import DeltaTable, write_deltalake

from dssm_assets_tests import worlds


@dataclass
class Lake:
    """One table; its rows have the partition column of each call of `append`."""

    format: str
    folder: Path
    name: str = ""
    catalog: Any = None
    options: dict[str, str] = field(default_factory=dict)

    @property
    def source(self) -> dict[str, Any]:
        """Returns the keys that name the table in a configuration."""
        if self.format == "delta":
            return {"uri": str(self.folder), "format": "delta"}
        return {"uri": "tests", "format": "iceberg", "table": self.name, "storage_options": self.options}

    @property
    def uri(self) -> str:
        """Returns the argument of `init` that names the table."""
        return str(self.folder) if self.format == "delta" else f"iceberg:tests#{self.name}"

    @property
    def table(self) -> Any:
        return DeltaTable(self.folder) if self.format == "delta" else self.catalog.load_table(self.name)

    def append(self, rows: pa.Table, partition: str | None = None) -> None:
        """Adds rows in files of their own, as one version."""
        if self.format == "delta":
            write_deltalake(self.folder, rows, mode="append", schema_mode="merge", partition_by=partition and [partition])
            return
        if not self.catalog.table_exists(self.name):
            table = self.catalog.create_table(self.name, schema=rows.schema)
            if partition is not None:
                with table.update_spec() as spec:
                    spec.add_identity(partition)
        table = self.table
        with table.update_schema() as update:
            update.union_by_name(rows.schema)
        table.append(rows)

    def drop(self) -> None:
        """Removes the table and its files."""
        if self.format == "iceberg":
            self.catalog.drop_table(self.name)
        for path in sorted(self.folder.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()

    def rewrite(self) -> None:
        """Writes the same rows in fewer files, by a version that says that it changes no row."""
        if self.format == "delta":
            self.table.optimize.compact()
            return
        table, before = self.table, {snapshot.snapshot_id for snapshot in self.table.snapshots()}
        table.overwrite(table.scan().to_arrow())
        path = Path(urlsplit(table.metadata_location).path)
        metadata = json.loads(path.read_text())
        for snapshot in metadata["snapshots"]:
            if snapshot["snapshot-id"] not in before:
                snapshot["summary"]["operation"] = "replace"  # pyiceberg itself does not compact
        path.write_text(json.dumps(metadata))

    def data_files(self) -> list[Path]:
        """Returns the files of the newest version."""
        if self.format == "delta":
            return [Path(unquote(path)) for path in self.table.file_uris()]
        return [Path(urlsplit(task.file.file_path).path) for task in self.table.scan().plan_files()]


def open_lake(form: str, folder: Path, name: str = "clicks") -> Lake:
    """Returns a table that does not exist yet."""
    if form == "delta":
        return Lake(form, folder / name)
    from pyiceberg.catalog import load_catalog

    options = {"type": "sql", "uri": f"sqlite:///{folder}/catalog.db", "warehouse": f"file://{folder}/warehouse"}
    catalog = load_catalog("tests", **options)
    catalog.create_namespace_if_not_exists("shop")
    return Lake(form, folder / "warehouse" / "shop" / name, f"shop.{name}", catalog, options)


def log_of(days: Sequence[int]) -> pa.Table:
    """Returns the log of some days, with times in microseconds of UTC."""
    rows = pa.Table.from_pylist(worlds.log_rows(days))
    times = rows.column("ts").cast(pa.timestamp("ms", "UTC")).cast(pa.timestamp("us", "UTC"))
    return rows.set_column(rows.schema.get_field_index("ts"), "ts", times)
