"""The filesystem of files with known sizes fetches each byte once and asks nothing else."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dssm_assets.storage import sized_files
from dssm_assets.storage.engines.duckdb import DuckDBEngine
from dssm_assets.storage.sized_files import SizedFileSystem
from dssm_assets.storage.tables import TableStore
from dssm_assets_tests.storage.stores import DS, NOTES, memory_store, notes


class _Remote:
    """A filesystem that only serves ranges of files."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.requests: list[tuple[str, int, int]] = []

    def cat_file(self, path: str, start: int, end: int) -> bytes:
        self.requests.append((path, start, end))
        return self.files[path][start:end]


def test_a_large_file_is_fetched_in_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sized_files, "SMALL_BYTES", 1000)
    monkeypatch.setattr(sized_files, "_BLOCK_BYTES", 100)
    content = bytes(range(256)) * 40
    remote = _Remote({"bucket/part": content})
    files = SizedFileSystem(remote, {"bucket/part": len(content)})
    with files.open("bucket/part", "rb") as handle:
        handle.seek(len(content) - 8)
        assert handle.read() == content[-8:]
        handle.seek(500)
        assert handle.read(20) == content[500:520]
    assert sum(end - start for _, start, end in remote.requests) <= 8 + 20 + 2 * 100


def test_a_large_remote_table_is_read_in_ranges_by_arrow_and_by_duckdb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sized_files, "SMALL_BYTES", 0)
    tables = TableStore(memory_store())
    rows = notes(*((f"u{number % 100}", number, "note " * 3) for number in range(5000)))
    manifest = tables.write(NOTES, DS, rows)
    assert tables.read(manifest).equals(rows)
    found = DuckDBEngine(tables).table(lambda stored: stored.aggregate(total=stored.at.sum()), {"stored": manifest})
    assert found.column("total").to_pylist() == [5000 * 4999 // 2]
    buffer = tables.partitions.fs.cat_file(tables.paths([manifest])[0])
    assert pq.read_table(pa.BufferReader(buffer)).num_rows == 5000
