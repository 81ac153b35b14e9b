"""Stored files of a remote store: nothing is asked that the manifests say, small files whole, large ones in ranges."""

from __future__ import annotations

import io
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dssm_assets.storage import stored_files
from dssm_assets.storage.duckdb_engine import DuckDBEngine
from dssm_assets.storage.engine import ByDay
from dssm_assets.storage.partition_store import PartitionStore
from dssm_assets.storage.stored_files import StoredFiles
from dssm_assets.storage.table_store import TableStore
from dssm_assets_tests.storage.stores import DS, TAKEN, memory_store, taken


class _Remote:
    """A filesystem that gives ranges of files and takes no other question."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.asked: list[tuple[str, int, int]] = []

    def cat_file(self, path: str, start: int, end: int) -> bytes:
        self.asked.append((path, start, end))
        return self.files[path][start:end]


def _opened(content: bytes) -> tuple[StoredFiles, _Remote]:
    remote = _Remote({"bucket/part": content})
    return StoredFiles(remote, {"bucket/part": len(content)}), remote


def test_a_small_file_is_fetched_once_however_often_it_is_opened() -> None:
    files, remote = _opened(b"0123456789")
    for _ in range(3):
        with files.open("bucket/part", "rb") as handle:
            handle.seek(-3, io.SEEK_END)
            assert handle.read() == b"789"
    assert remote.asked == [("bucket/part", 0, 10)]


def test_more_than_may_be_kept_is_fetched_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_files, "KEPT_BYTES", 9)
    files, remote = _opened(b"0123456789")
    assert [files.open("bucket/part").read() for _ in range(2)] == [b"0123456789"] * 2
    assert len(remote.asked) == 2


def test_of_a_large_file_only_a_part_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_files, "SMALL_BYTES", 1000)
    monkeypatch.setattr(stored_files, "_BLOCK_BYTES", 100)
    content = bytes(range(256)) * 40
    files, remote = _opened(content)
    with files.open("bucket/part", "rb") as handle:
        handle.seek(len(content) - 8)
        assert handle.read() == content[-8:]
        handle.seek(500)
        assert handle.read(20) == content[500:520]
    assert sum(end - start for _, start, end in remote.asked) <= 8 + 20 + 2 * 100


def test_it_knows_its_files_and_no_other() -> None:
    files, remote = _opened(b"x")
    assert files.info("stored://bucket/part") == {"name": "bucket/part", "size": 1, "type": "file"}
    assert files.ls("bucket/part", detail=False) == ["bucket/part"]
    assert files.exists("bucket/part")
    assert not files.exists("bucket/other")
    with pytest.raises(FileNotFoundError, match="bucket/other"):
        files.open("bucket/other", "rb")
    assert remote.asked == []


class _Counting:
    """A store's filesystem whose calls are counted."""

    def __init__(self, fs: Any) -> None:
        self.fs = fs
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        self.calls.append(name)
        return getattr(self.fs, name)


def _counted(store: PartitionStore) -> _Counting:
    counting = _Counting(store.fs)
    store.fs = counting  # type: ignore[assignment]
    return counting


def test_a_query_over_two_days_costs_one_request_for_each_file() -> None:
    tables = TableStore(memory_store())
    days = [tables.write(TAKEN, ds, taken(("a", at, None))) for at, ds in enumerate(("2024-01-01", "2024-01-02"))]
    counting = _counted(tables.partitions)
    result = DuckDBEngine(tables).table(lambda rows: rows.order_by("at"), {"rows": ByDay(tuple(days))})
    assert [str(day) for day in result.column("ds").to_pylist()] == ["2024-01-01", "2024-01-02"]
    assert [call for call in counting.calls if call != "protocol"] == ["cat_file", "cat_file"]


def test_reading_a_partition_costs_one_request_for_its_file() -> None:
    tables = TableStore(memory_store())
    manifest = tables.write(TAKEN, DS, taken(("a", 1, "x")))
    counting = _counted(tables.partitions)
    assert tables.read(manifest).num_rows == 1
    assert sum(batch.num_rows for batch in tables.batches(manifest)) == 1
    assert counting.calls == ["cat_file", "cat_file"]


def test_the_days_of_a_remote_table_cost_one_listing() -> None:
    tables = TableStore(memory_store())
    days = [f"2024-01-{day:02d}" for day in range(1, 6)]
    for ds in days:
        tables.write(TAKEN, ds, taken(("a", 1, "x")))
    counting = _counted(tables.partitions)
    assert tables.partitions.days("taken") == days
    assert counting.calls == ["find"]
    assert tables.partitions.days("never_written") == []


def test_a_large_remote_table_is_read_in_ranges_by_arrow_and_by_duckdb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_files, "SMALL_BYTES", 0)
    tables = TableStore(memory_store())
    rows = taken(*((f"u{number % 100}", number, "note " * 3) for number in range(5000)))
    manifest = tables.write(TAKEN, DS, rows)
    assert tables.read(manifest).equals(rows)
    found = DuckDBEngine(tables).table(lambda stored: stored.aggregate(total=stored.at.sum()), {"stored": manifest})
    assert found.column("total").to_pylist() == [5000 * 4999 // 2]
    buffer = tables.partitions.fs.cat_file(tables.paths([manifest])[0])
    assert pq.read_table(pa.BufferReader(buffer)).num_rows == 5000
