"""Source tables are written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dssm_assets.core.errors import SchemaError
from dssm_assets.datasets.source_tables import (
    DatasetMissingError,
    SourceTables,
    read_tables,
    require_columns,
    sort_rows,
    write_tables,
)

TABLES = SourceTables(
    pa.table({"user_id": [1]}), pa.table({"item_id": [2]}), pa.table({"user_id": [1], "item_id": [2], "event_time": [3]})
)


def test_read_tables_returns_what_write_tables_wrote(tmp_path: Path) -> None:
    sizes = write_tables(TABLES, tmp_path / "new" / "folder")
    assert read_tables(tmp_path / "new" / "folder") == TABLES
    assert sorted(sizes) == sorted(path.name for path in (tmp_path / "new" / "folder").iterdir())


def test_a_failing_write_leaves_the_existing_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tables(TABLES, tmp_path)
    original = pq.write_table

    def failing(table: pa.Table, path: Path, **options: object) -> None:
        if path.name == "behavior.parquet":
            raise OSError("disk full")
        original(table, path, **options)

    monkeypatch.setattr(pq, "write_table", failing)
    with pytest.raises(OSError, match="disk full"):
        write_tables(SourceTables(TABLES.users.slice(1), TABLES.items.slice(1), TABLES.behavior), tmp_path)
    assert read_tables(tmp_path) == TABLES
    assert sorted(path.name for path in tmp_path.iterdir()) == ["behavior.parquet", "items.parquet", "users.parquet"]


def test_every_missing_file_is_named(tmp_path: Path) -> None:
    write_tables(TABLES, tmp_path)
    (tmp_path / "users.parquet").unlink()
    (tmp_path / "items.parquet").unlink()
    with pytest.raises(DatasetMissingError, match=r"(?s)2 faults.*items\.parquet.*users\.parquet"):
        read_tables(tmp_path)


def test_every_missing_column_is_named() -> None:
    with pytest.raises(SchemaError, match=r"(?s)file x, column a: .*got columns user_id.*file x, column b"):
        require_columns(TABLES.users, ["b", "user_id", "a"], "file x")


def test_sort_rows_breaks_ties_by_all_columns() -> None:
    table = pa.table({"a": [2, 2, 1], "b": [1, 1, 9], "c": [8, 7, 9]})
    assert sort_rows(table, ["b"]).to_pydict() == {"a": [2, 2, 1], "b": [1, 1, 9], "c": [7, 8, 9]}
