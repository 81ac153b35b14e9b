"""Source tables are written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dssm_assets.datasets.source_tables import NAMES, SourceTables, sort_rows, write_tables

TABLES = SourceTables(
    pa.table({"user_id": [1]}), pa.table({"item_id": [2]}), pa.table({"user_id": [1], "item_id": [2], "event_time": [3]})
)


def read_tables(folder: Path) -> SourceTables:
    return SourceTables(*(pq.read_table(folder / f"{name}.parquet") for name in NAMES))


def test_write_tables_makes_the_folder_and_three_files(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    write_tables(TABLES, folder)
    assert read_tables(folder) == TABLES
    assert sorted(path.stem for path in folder.iterdir()) == sorted(NAMES)


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


def test_sort_rows_breaks_ties_by_all_columns() -> None:
    table = pa.table({"a": [2, 2, 1], "b": [1, 1, 9], "c": [8, 7, 9]})
    assert sort_rows(table, ["b"]).to_pydict() == {"a": [2, 2, 1], "b": [1, 1, 9], "c": [7, 8, 9]}
