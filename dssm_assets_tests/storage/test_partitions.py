"""Publishing: whole or not at all, on a folder and in memory; windows; verification."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
import textwrap
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dssm_assets.core.errors import PartitionMissingError, StorageError, WindowIncompleteError
from dssm_assets.core.schema import ColumnSpec, TableSpec
from dssm_assets.storage import sized_files
from dssm_assets.storage.engines.duckdb import DuckDBEngine
from dssm_assets.storage.engines.engine import ByDay
from dssm_assets.storage.manifest import Manifest
from dssm_assets.storage.overlay import OverlayStore, experiment_names
from dssm_assets.storage.partitions import PartitionStore
from dssm_assets.storage.sized_files import SizedFileSystem
from dssm_assets.storage.tables import TableStore
from dssm_assets_tests.storage.stores import DS, TAKEN, files_of, memory_store, stores, taken


def publish(store, contents, ds=DS, **more) -> Manifest:
    with store.staging() as folder:
        staged = []
        for name, content in contents.items():
            path = folder / name
            path.write_bytes(content)
            staged.append((path, len(content)))
        return store.publish(asset="model", ds=ds, staged=staged, **more)


def contents(store, manifest):
    return {file.name: store.fs.cat_file(store.file_path(manifest, file)) for file in manifest.files}


@pytest.fixture(params=["local", "memory"])
def store(request, tmp_path):
    return stores(tmp_path)[request.param]


def test_what_is_published_is_found_again(store):
    manifest = publish(store, {"a.bin": b"one", "b.bin": b"two"}, inputs={"sample/2024-01-01": "ff"}, facts={"seed": 3})
    found = store.manifest("model", DS)
    assert found == manifest
    assert contents(store, found) == {"a.bin": b"one", "b.bin": b"two"}
    assert [(file.bytes, file.rows) for file in found.files] == [(3, 3), (3, 3)]
    assert (found.inputs, found.facts) == ({"sample/2024-01-01": "ff"}, {"seed": 3})


def test_only_the_partition_is_left_behind(store):
    manifest = publish(store, {"a.bin": b"one"})
    stored = manifest.files[0].path
    assert set(files_of(store)) == {f"model/ds={DS}/_manifest.json", f"model/ds={DS}/{stored}"}


def test_superseded_files_go_and_files_with_the_same_content_stay(store):
    before = publish(store, {"a.bin": b"one", "b.bin": b"two"})
    after = publish(store, {"a.bin": b"one", "b.bin": b"three"})
    assert contents(store, after) == {"a.bin": b"one", "b.bin": b"three"}
    assert before.files[0] == after.files[0]
    names = {path.rpartition("/")[2] for path in files_of(store)}
    assert names == {"_manifest.json", *(file.path for file in after.files)}


def test_days_do_not_touch_each_other(store):
    first = publish(store, {"a.bin": b"one"}, ds="2024-01-01")
    publish(store, {"a.bin": b"two"}, ds="2024-01-02")
    publish(store, {"a.bin": b"three"}, ds="2024-01-02")
    assert contents(store, store.manifest("model", "2024-01-01")) == {"a.bin": b"one"}
    assert store.manifest("model", "2024-01-01") == first


def test_a_shared_file_is_named_by_many_days_and_never_removed(store):
    first = publish(store, {"a.bin": b"one"}, ds="2024-01-01", is_shared=True)
    second = store.publish_shared(first, "2024-01-02")
    assert second.digest == first.digest
    assert second.ds == "2024-01-02"
    publish(store, {"a.bin": b"other"}, ds="2024-01-01")
    assert contents(store, store.manifest("model", "2024-01-02")) == {"a.bin": b"one"}
    assert contents(store, store.manifest("model", "2024-01-01")) == {"a.bin": b"other"}


def test_days_are_those_with_a_visible_partition(store):
    assert store.days("model") == []
    for ds in ("2024-01-03", "2024-01-01"):
        publish(store, {"a.bin": b"one"}, ds=ds)
    for folder in ("ds=2024-01-02", "other"):
        store.fs.makedirs(f"{store.root}/model/{folder}", exist_ok=True)
        store.fs.pipe_file(f"{store.root}/model/{folder}/a.bin", b"placed, never shown")
    assert store.days("model") == ["2024-01-01", "2024-01-03"]


def test_a_missing_partition_is_named_with_the_command(store):
    assert store.find("model", DS) is None
    with pytest.raises(
        PartitionMissingError, match=r"no partition for 2024-01-02.*materialize model --from 2024-01-02 --to 2024-01-02"
    ):
        store.manifest("model", DS)


def test_a_window_comes_in_the_order_asked_for(store):
    for ds in ("2024-01-01", "2024-01-02"):
        publish(store, {"a.bin": ds.encode()}, ds=ds)
    assert [found.ds for found in store.window("model", ["2024-01-02", "2024-01-01"])] == ["2024-01-02", "2024-01-01"]


def test_an_incomplete_window_names_every_missing_day_and_the_command(store):
    publish(store, {"a.bin": b"one"}, ds="2024-01-02")
    with pytest.raises(WindowIncompleteError) as caught:
        store.window("model", ["2024-01-01", "2024-01-02", "2024-01-03", "2024-01-04"])
    message = str(caught.value)
    assert "table model" in message
    assert "no partition for 2024-01-01, 2024-01-03, 2024-01-04." in message
    assert "dssm-assets materialize model --from 2024-01-01 --to 2024-01-04" in message


def test_a_long_list_of_missing_days_is_counted_not_cut_silently(store):
    days = [f"2024-01-{day:02d}" for day in range(1, 15)]
    with pytest.raises(WindowIncompleteError, match=r"2024-01-10 and 4 more.*--from 2024-01-01 --to 2024-01-14"):
        store.window("model", days)


def test_verify_passes_what_was_published_and_finds_a_flipped_byte(store):
    manifest = publish(store, {"good.bin": b"one", "bad.bin": bytes(range(256))})
    store.verify(manifest)
    path = store.file_path(manifest, manifest.files[1])
    content = bytearray(store.fs.cat_file(path))
    content[100] ^= 1
    store.fs.pipe_file(path, bytes(content))
    with pytest.raises(
        StorageError, match=r"model/2024-01-02: files \['bad.bin'\] differ from the manifest; materialize it again"
    ):
        store.verify(manifest)


def test_a_failure_before_the_swap_leaves_the_previous_partition(store, monkeypatch):
    before = publish(store, {"a.bin": b"one"})
    seen = files_of(store)

    def refuse(path, text):
        raise OSError("disk full")

    monkeypatch.setattr(store, "_write_manifest", refuse)
    with pytest.raises(OSError, match="disk full"):
        publish(store, {"a.bin": b"two"})
    assert store.manifest("model", DS) == before
    assert {path: content for path, content in files_of(store).items() if path in seen} == seen
    store.verify(before)


KILLED = textwrap.dedent(
    """
    import os, pathlib, signal, sys
    from dssm_assets.storage.partitions import PartitionStore
    store = PartitionStore(sys.argv[1])
    store._write_manifest = lambda path, text: os.kill(os.getpid(), signal.SIGKILL)
    with store.staging() as folder:
        path = folder / "a.bin"
        path.write_bytes(b"two")
        store.publish(asset="model", ds=sys.argv[2], staged=[(path, 1)])
    """
)


def test_a_process_killed_between_placing_and_swapping_leaves_the_previous_partition(tmp_path):
    store = PartitionStore(str(tmp_path))
    before = publish(store, {"a.bin": b"one"})
    seen = files_of(store)
    died = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), DS], check=False, timeout=60)
    assert died.returncode == -signal.SIGKILL
    now = files_of(store)
    assert b"two" in now.values(), "the file was placed before the process died"
    assert {path: now[path] for path in seen} == seen
    assert contents(store, store.manifest("model", DS)) == {"a.bin": b"one"}
    store.verify(before)
    after = publish(store, {"a.bin": b"two"})
    assert contents(store, store.manifest("model", DS)) == {"a.bin": b"two"}
    store.verify(after)


def test_staging_is_gone_after_use_even_after_a_failure(store):
    with pytest.raises(RuntimeError, match="half way"), store.staging() as folder:
        (folder / "a.bin").write_bytes(b"one")
        raise RuntimeError("half way")
    assert not folder.exists()


class _Remote:
    """A filesystem that gives ranges of files and takes no other question."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.asked: list[tuple[str, int, int]] = []

    def cat_file(self, path: str, start: int, end: int) -> bytes:
        self.asked.append((path, start, end))
        return self.files[path][start:end]


def _opened(content: bytes) -> tuple[SizedFileSystem, _Remote]:
    remote = _Remote({"bucket/part": content})
    return SizedFileSystem(remote, {"bucket/part": len(content)}), remote


def test_a_small_file_is_fetched_once_however_often_it_is_opened() -> None:
    files, remote = _opened(b"0123456789")
    for _ in range(3):
        with files.open("bucket/part", "rb") as handle:
            handle.seek(-3, io.SEEK_END)
            assert handle.read() == b"789"
    assert remote.asked == [("bucket/part", 0, 10)]


def test_more_than_may_be_kept_is_fetched_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sized_files, "CACHED_BYTES", 9)
    files, remote = _opened(b"0123456789")
    assert [files.open("bucket/part").read() for _ in range(2)] == [b"0123456789"] * 2
    assert len(remote.asked) == 2


def test_of_a_large_file_only_a_part_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sized_files, "SMALL_BYTES", 1000)
    monkeypatch.setattr(sized_files, "_BLOCK_BYTES", 100)
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
    monkeypatch.setattr(sized_files, "SMALL_BYTES", 0)
    tables = TableStore(memory_store())
    rows = taken(*((f"u{number % 100}", number, "note " * 3) for number in range(5000)))
    manifest = tables.write(TAKEN, DS, rows)
    assert tables.read(manifest).equals(rows)
    found = DuckDBEngine(tables).table(lambda stored: stored.aggregate(total=stored.at.sum()), {"stored": manifest})
    assert found.column("total").to_pylist() == [5000 * 4999 // 2]
    buffer = tables.partitions.fs.cat_file(tables.paths([manifest])[0])
    assert pq.read_table(pa.BufferReader(buffer)).num_rows == 5000


DAY, LATER = "2024-01-01", "2024-01-02"
SPEC = TableSpec("numbers", "one row per number", ("n",), (ColumnSpec("n", pa.int64(), "A number."),))


@pytest.fixture(params=["local", "memory"])
def root(request, tmp_path):
    return str(tmp_path) if request.param == "local" else f"memory://{tmp_path.name}"


def write(store, ds, *numbers):
    return TableStore(store).write(SPEC, ds, pa.table({"n": pa.array(numbers, pa.int64())}))


def read(store, ds):
    return TableStore(store).read(store.manifest("numbers", ds)).column("n").to_pylist()


def test_what_is_not_there_is_read_from_below(root):
    below = PartitionStore(root)
    write(below, DAY, 1, 2)
    above = OverlayStore(below, "hot")
    assert read(above, DAY) == [1, 2]
    assert not above.is_own(above.manifest("numbers", DAY))
    with pytest.raises(PartitionMissingError):
        above.manifest("numbers", LATER)


def test_what_is_written_stays_above(root):
    below = PartitionStore(root)
    standing = write(below, DAY, 1, 2)
    above = OverlayStore(below, "hot")
    made = write(above, DAY, 3)
    assert read(above, DAY) == [3]
    assert read(OverlayStore(below, "hot"), DAY) == [3]
    assert above.is_own(made)
    assert read(below, DAY) == [1, 2]
    assert below.manifest("numbers", DAY) == standing
    below.verify(standing)


def test_a_standing_manifest_still_leads_to_the_standing_files(root):
    below = PartitionStore(root)
    standing = write(below, DAY, 1, 2)
    above = OverlayStore(below, "hot")
    write(above, DAY, 3)
    assert TableStore(above).read(standing).column("n").to_pylist() == [1, 2]


def test_writing_again_removes_no_file_below(root):
    below = PartitionStore(root)
    standing = write(below, DAY, 1, 2)
    above = OverlayStore(below, "hot")
    for number in (3, 4):
        write(above, DAY, number)
    assert read(above, DAY) == [4]
    below.verify(standing)


def test_days_are_those_of_both(root):
    below = PartitionStore(root)
    write(below, DAY, 1)
    above = OverlayStore(below, "hot")
    write(above, LATER, 2)
    assert above.days("numbers") == [DAY, LATER]
    assert below.days("numbers") == [DAY]


def test_experiments_are_found_by_name_beside_the_days_of_their_table(root):
    below = PartitionStore(root)
    assert experiment_names(below) == []
    for name in ("warm", "hot"):
        write(OverlayStore(below, name), DAY, 1)
    table = TableSpec("experiments", SPEC.grain, SPEC.key, SPEC.columns)
    TableStore(below).write(table, DAY, pa.table({"n": pa.array([1], pa.int64())}))
    assert experiment_names(below) == ["hot", "warm"]
    assert set(below.days("experiments")) == {DAY}
