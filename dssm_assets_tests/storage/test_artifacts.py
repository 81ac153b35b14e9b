"""Artifacts: bytes and memory-mapped Arrow files under their names, near and far, whole and streamed."""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pyarrow as pa
import pytest

from dssm_assets.core.errors import StorageError
from dssm_assets.storage.artifacts import IN_USE_SECONDS, ArtifactStore, Stream, fetch_cached
from dssm_assets_tests.storage.stores import DS, files_of, stores, verify

TABLE = pa.table({"item_index": pa.array([3, 1, 2], pa.int32()), "tags": pa.array([[1], [], [2, 3]], pa.list_(pa.int32()))})


@pytest.fixture(params=["local", "memory"])
def artifacts(request, tmp_path):
    return ArtifactStore(stores(tmp_path)[request.param], tmp_path / "cache")


def test_published_bytes_and_tables_are_read_back(artifacts):
    manifest = artifacts.publish(
        "train_samples", DS, {"samples.arrow": TABLE, "report.json": b"{}"}, row_file="samples.arrow", facts={"samples": 3}
    )
    assert artifacts.read_bytes(manifest, "report.json") == b"{}"
    assert artifacts.map_table(manifest, "samples.arrow").equals(TABLE)
    assert manifest.rows == 3
    assert artifacts.partitions.need("train_samples", DS) == manifest


def test_a_mapped_table_is_not_copied_into_memory(artifacts):
    big = pa.table({"x": pa.array(range(1_000_000), pa.int64())})
    manifest = artifacts.publish("train_samples", DS, {"big.arrow": big})
    before = pa.total_allocated_bytes()
    mapped = artifacts.map_table(manifest, "big.arrow")
    assert pa.total_allocated_bytes() - before < 100_000
    assert mapped.column("x")[999_999].as_py() == 999_999
    assert mapped.column("x").num_chunks == 1


def test_equal_content_in_other_chunks_is_equal_bytes_and_an_empty_table_can_be_mapped(artifacts):
    pieces = pa.concat_tables([TABLE.slice(0, 1), TABLE.slice(1)])
    whole = artifacts.publish("train_samples", "2024-01-01", {"samples.arrow": TABLE})
    cut = artifacts.publish("train_samples", "2024-01-02", {"samples.arrow": pieces})
    assert cut.digest == whole.digest
    manifest = artifacts.publish("train_samples", DS, {"samples.arrow": TABLE.slice(0, 0)})
    mapped = artifacts.map_table(manifest, "samples.arrow")
    assert (mapped.num_rows, mapped.schema) == (0, TABLE.schema)


def batches(*bounds):
    return (TABLE.slice(low, high - low).combine_chunks().to_batches()[0] for low, high in bounds)


def test_a_stream_joins_its_batches_and_counts_their_rows(artifacts, monkeypatch):
    monkeypatch.setattr("dssm_assets.storage.artifacts.JOINED_ROWS", 2)
    empty = pa.RecordBatch.from_pylist([], schema=TABLE.schema)
    parts = [*batches((0, 1)), empty, *batches((1, 2), (2, 3))]
    files = {"samples.arrow": Stream(TABLE.schema, iter(parts)), "rows.arrow": Stream(TABLE.schema, batches((1, 2)))}
    manifest = artifacts.publish("train_samples", DS, files, row_file="samples.arrow")
    mapped = artifacts.map_table(manifest, "samples.arrow")
    assert mapped.equals(TABLE)
    assert [batch.num_rows for batch in mapped.to_batches()] == [2, 1]
    assert [file.rows for file in manifest.files] == [3, 0]
    assert artifacts.map_table(manifest, "rows.arrow").to_pylist() == [{"item_index": 1, "tags": []}]
    verify(artifacts.partitions, manifest)


def test_a_stream_holds_one_batch_at_a_time(artifacts, monkeypatch):
    monkeypatch.setattr("dssm_assets.storage.artifacts.JOINED_ROWS", 1)
    made = []

    def one_by_one():
        for number in range(4):
            assert not [batch for batch in made if batch() is not None]
            batch = pa.record_batch({"x": [number]})
            made.append(weakref.ref(batch))
            yield batch
            del batch

    schema = pa.schema([("x", pa.int64())])
    manifest = artifacts.publish("train_samples", DS, {"x.arrow": Stream(schema, one_by_one())})
    assert artifacts.map_table(manifest, "x.arrow").column("x").to_pylist() == [0, 1, 2, 3]


def test_a_failing_stream_leaves_the_existing_artifact(artifacts):
    before = artifacts.publish("train_samples", DS, {"samples.arrow": TABLE})
    stored = files_of(artifacts.partitions)

    def failing():
        yield from batches((0, 1))
        raise ValueError("the second day is broken")

    with pytest.raises(ValueError, match="the second day is broken"):
        artifacts.publish("train_samples", DS, {"samples.arrow": Stream(TABLE.schema, failing())})
    assert artifacts.partitions.need("train_samples", DS) == before
    assert files_of(artifacts.partitions) == stored


def test_an_unknown_file_is_refused_with_the_existing_names(artifacts):
    manifest = artifacts.publish("dssm_model", DS, {"model.bin": b"x", "towers.json": b"y"})
    with pytest.raises(
        StorageError, match=r"artifact dssm_model/2024-01-02 has no file 'model.pt', it has: model.bin, towers.json"
    ):
        artifacts.read_bytes(manifest, "model.pt")


def test_a_remote_file_is_fetched_once_and_again_when_its_content_changes(tmp_path):
    artifacts = ArtifactStore(stores(tmp_path)["memory"], tmp_path / "cache")
    first = artifacts.publish("dssm_model", DS, {"model.bin": b"one"})
    assert artifacts.read_bytes(first, "model.bin") == b"one"
    second = artifacts.publish("dssm_model", DS, {"model.bin": b"two"})
    assert artifacts.read_bytes(second, "model.bin") == b"two"
    # The first is gone from the store; the local copy of its content still serves who holds its manifest.
    assert artifacts.read_bytes(first, "model.bin") == b"one"


def _writes(content: bytes, calls: list[str] | None = None) -> Callable[[str], None]:
    def fetch(path: str) -> None:
        Path(path).write_bytes(content)
        if calls is not None:
            calls.append(path)

    return fetch


def _names(cache: Path) -> set[str]:
    return {path.relative_to(cache).as_posix() for path in cache.rglob("*") if path.is_file()}


def test_concurrent_fetches_of_a_file_each_get_it_whole(tmp_path: Path) -> None:
    both = Barrier(2)

    def fetch(path: str) -> None:
        both.wait(10)
        Path(path).write_bytes(b"weights" * 1000)
        both.wait(10)

    with ThreadPoolExecutor(2) as pool:
        paths = list(pool.map(lambda _: fetch_cached(tmp_path, "model/abc/model.pt", fetch), range(2)))
    assert [path.read_bytes() for path in paths] == [b"weights" * 1000] * 2
    assert _names(tmp_path) == {"model/abc/model.pt"}


def test_the_least_recently_used_file_is_removed_first_and_no_recent_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dssm_assets.storage.artifacts.LIMIT_BYTES", 25)
    for number, name in enumerate(("first", "second")):
        used = time.time() - (3 - number) * IN_USE_SECONDS
        os.utime(fetch_cached(tmp_path, name, _writes(b"0123456789")), (used, used))
    fetch_cached(tmp_path, "first", _writes(b""))  # used again, so now the younger one
    fetch_cached(tmp_path, "third", _writes(b"0123456789"))
    assert _names(tmp_path) == {"first", "third"}
    fetch_cached(tmp_path, "fourth", _writes(b"0123456789"))
    assert _names(tmp_path) == {"first", "third", "fourth"}, "all were used recently"
