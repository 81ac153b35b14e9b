"""A full disk is a typed error that says what to do, and leaves what was published whole.

The disk is a real one of 1 MiB, in a mount namespace of its own.
"""

from __future__ import annotations

import errno
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from dssm_assets.core.errors import DiskFullError, SchemaError
from dssm_assets.service.bundle.bundle_store import open_bundles
from dssm_assets.steps.workspace import open_workspace
from dssm_assets.storage.disk_space import disk_errors, explain_disk_error
from dssm_assets_tests import worlds
from dssm_assets_tests.service.bundle.published_bundles import publish_bundle
from dssm_assets_tests.worlds import EVALUATION_DAY

MOUNTED = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c")


def _can_mount() -> bool:
    try:
        return subprocess.run([*MOUNTED, "mount -t tmpfs none /mnt"], check=False, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


WRITES = textwrap.dedent(
    """
    import contextlib
    import sqlite3
    import sys
    from pathlib import Path
    import numpy as np
    import pyarrow as pa
    from dssm_assets.core.errors import DiskFullError
    from dssm_assets.storage.artifacts import ArtifactStore
    from dssm_assets.storage.disk_space import disk_errors
    from dssm_assets.storage.engines.duckdb import DuckDBEngine
    from dssm_assets.storage.local_files import ScratchArrays
    from dssm_assets.storage.partitions import PartitionStore
    from dssm_assets.storage.tables import TableStore
    from dssm_assets_tests.storage.stores import DS, NOTES, notes, verify

    root = Path(sys.argv[1])
    store = PartitionStore(str(root / "tables"))
    tables = TableStore(store)
    before = tables.write(NOTES, DS, notes(("a", 1, None)))
    random = np.random.default_rng(0).bytes(4 << 20)
    big = notes(*((random[at : at + 16].hex(), at, None) for at in range(0, len(random), 32)))

    def spill():
        engine = DuckDBEngine(tables, threads=1, memory="32MB", scratch=root / "scratch")
        wide = pa.table({"key": np.random.default_rng(0).permutation(3_000_000)})
        engine.table(lambda rows: rows.order_by("key"), {"rows": wide})

    def read_events():
        with contextlib.closing(sqlite3.connect(root / "events.db")) as events:
            events.execute("pragma journal_mode = wal")
            events.execute("create table events (text)")
        with contextlib.suppress(OSError), (root / "array-full").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(512))
        sqlite3.connect(root / "events.db").execute("select * from events")

    for name, write in {
        "table": lambda: tables.write(NOTES, DS, big),
        "artifact": lambda: ArtifactStore(store, root / "cache").publish("model", DS, {"weights": random}),
        "array": lambda: ScratchArrays(root)(4 << 20, np.int8),
        "spill": spill,
        "events": read_events,
    }.items():
        try:
            with disk_errors():
                write()
        except DiskFullError as error:
            print(name, error)
        else:
            print(name, "no error")
        for left in root.glob("array-*"):
            left.unlink()
    verify(store, store.need("notes", DS))
    assert store.need("notes", DS) == before
    assert list((root / "tables" / "_staging").iterdir()) == []
    print("whole")
    """
)


@pytest.mark.skipif(not _can_mount(), reason="mounting a small disk is not allowed here")
def test_every_way_of_writing_to_a_full_disk_is_a_typed_error(tmp_path: Path) -> None:
    command = f'mount -t tmpfs -o size=1m none {tmp_path} && {sys.executable} -c "$0" {tmp_path}'
    done = subprocess.run([*MOUNTED, command, WRITES], check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    *lines, last = done.stdout.splitlines()
    assert last == "whole"
    assert [line.split()[0] for line in lines] == ["table", "artifact", "array", "spill", "events"]
    assert "disk I/O error" in lines[-1]
    for line in lines:
        assert "expected room for the files of this run" in line, line
        remedy = "free space (dssm-assets cleanup removes leftovers and replaced files) or use another disk (storage.root, "
        assert remedy in line and "TMPDIR" in line


def test_error_of_a_full_disk_is_recognised_behind_others() -> None:
    try:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            raise ValueError("could not write") from error
    except ValueError as error:
        assert isinstance(explain_disk_error(error), DiskFullError)
    assert isinstance(explain_disk_error(RuntimeError("(sqlite3.OperationalError) database or disk is full")), DiskFullError)


def test_places_that_cannot_be_written_are_named(tmp_path: Path) -> None:
    refused = PermissionError(errno.EACCES, "Permission denied", "/home/other/file")
    assert str(explain_disk_error(refused)).startswith("/home/other/file: expected a place that can be used, got [Errno 13]")
    with pytest.raises(sqlite3.OperationalError) as caught:
        sqlite3.connect(tmp_path)
    assert "unable to open database file" in str(explain_disk_error(caught.value))
    assert explain_disk_error(PermissionError(errno.EACCES, "Permission denied")) is None, "a port"
    assert explain_disk_error(FileNotFoundError(errno.ENOENT, "No such file", "x")) is None


@pytest.mark.slow
@pytest.mark.skipif(not _can_mount(), reason="mounting a disk is not allowed here")
def test_commands_on_a_read_only_disk_end_with_a_typed_error_and_a_dry_run_works(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    loaded = worlds.built_world(tmp_path_factory).copy(tmp_path / "world")
    workspace = open_workspace(loaded)
    publish_bundle(workspace)
    store = open_bundles(loaded)
    with store.staging() as folder:
        store.publish(folder, {"ds": EVALUATION_DAY, "inputs": {}}, 3)
    where = f"--config {loaded.path} --home {loaded.home}"
    commands = [f"{command} {where}" for command in ("rollback", "publish", f"materialize sample --from {EVALUATION_DAY}")]
    commands += [f"tune --trials 1 {where}", f"cleanup --dry-run --grace-hours 0 {where}"]
    mounted = f'mount --bind {tmp_path} {tmp_path} && mount -o remount,ro,bind {tmp_path} && {sys.executable} -c "$0"'
    done = subprocess.run([*MOUNTED, mounted, RUNS.format(commands)], check=False, capture_output=True, text=True, timeout=300)
    assert done.stdout.splitlines()[-1] == "[1, 1, 1, 1, 0]", done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("expected a place that can be used, got [Errno 30] Read-only file system") == 4


RUNS = "from dssm_assets.cli import main; print([main(command.split()) for command in {!r}])"


def test_other_errors_pass() -> None:
    with pytest.raises(KeyError), disk_errors():
        raise KeyError("a")
    fault = DiskFullError([])
    with pytest.raises(DiskFullError) as caught, disk_errors():
        raise fault
    assert caught.value is fault
    assert not issubclass(SchemaError, DiskFullError)
