"""Small stores, tables and artifacts that the storage tests share."""

from __future__ import annotations

import hashlib
import uuid
from pathlib import Path

import pyarrow as pa

from dssm_assets.core.schema import ColumnSpec, TableSpec
from dssm_assets.storage.manifest import Manifest
from dssm_assets.storage.partitions import PartitionStore
from dssm_assets.storage.tables import TableStore

DS = "2024-01-02"
NOTES = TableSpec(
    name="notes",
    grain="one row per user and time",
    key=("user_id", "at"),
    columns=(
        ColumnSpec("user_id", None, "Who."),
        ColumnSpec("at", pa.int64(), "When."),
        ColumnSpec("note", pa.string(), "Remark; may be missing.", is_nullable=True),
    ),
    extra={"*": "Anything else.", "*_count": "A count."},
)
SCHEMA = pa.schema([("user_id", pa.string()), ("at", pa.int64()), ("note", pa.string())])


def notes(*rows: tuple[str | None, int | None, str | None]) -> pa.Table:
    """Returns rows (user_id, at, note) as a table."""
    return pa.Table.from_pylist([dict(zip(SCHEMA.names, row, strict=True)) for row in rows], schema=SCHEMA)


def memory_store() -> PartitionStore:
    return PartitionStore(f"memory://store-{uuid.uuid4().hex}")


def stores(tmp_path: Path) -> dict[str, PartitionStore]:
    """Returns an empty store of each kind."""
    return {"local": PartitionStore(str(tmp_path / "root")), "memory": memory_store()}


def files_of(store: PartitionStore) -> dict[str, bytes]:
    """Returns path below the root -> content, of every file there is."""
    root = store.root.rstrip("/")
    paths = store.fs.find(root) if store.fs.exists(root) else []
    return {path[len(root) + 1 :]: store.fs.cat_file(path) for path in paths}


def verify(store: PartitionStore, manifest: Manifest) -> None:
    """Checks every file of a partition against its digest."""
    contents = {file: store.fs.cat_file(store.file_path(manifest, file)) for file in manifest.files}
    wrong = [file.name for file, content in contents.items() if hashlib.sha256(content).hexdigest() != file.sha256]
    assert not wrong, f"partition {manifest.key}: files {wrong} differ from the manifest"


def parquet_bytes(tables: TableStore, table: pa.Table, ds: str = DS) -> bytes:
    """Returns the bytes that a table becomes when it is written."""
    manifest = tables.write(NOTES, ds, table)
    return tables.partitions.fs.cat_file(tables.paths([manifest])[0])
