"""Several writers and readers of one partition: none loses a file, readers see one writer's content whole.

Each content of a partition is three files that all hold one mark. Replaced files are removed at once here, which is the
hardest case for readers.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dssm_assets.core.errors import StorageError
from dssm_assets.storage.partitions import PartitionStore
from dssm_assets.storage.tables import TableStore
from dssm_assets_tests.storage.races import publish_mark, race, read_marks
from dssm_assets_tests.storage.stores import DS, NOTES, memory_store, notes, verify


@pytest.fixture(params=["local", "memory"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], PartitionStore]:
    if request.param == "local":
        return lambda: PartitionStore(str(tmp_path), grace_seconds=0)
    url = memory_store().fs.unstrip_protocol(memory_store().root)
    return lambda: PartitionStore(url, grace_seconds=0)


class _Paused:
    """A store's filesystem that lets something else happen before the first removal of a file."""

    def __init__(self, fs: Any, meanwhile: Callable[[], None]) -> None:
        self.fs = fs
        self._meanwhile = [meanwhile]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.fs, name)

    def rm_file(self, path: str) -> None:
        if self._meanwhile:
            self._meanwhile.pop()()
        self.fs.rm_file(path)


def test_content_that_stood_before_and_is_written_again_meanwhile_stays(open_store: Callable[[], PartitionStore]) -> None:
    """X stands, A writes Y; before A removes the files of X, B writes X again."""
    ours, theirs = open_store(), open_store()
    publish_mark(ours, "x")
    other = threading.Thread(target=publish_mark, args=(theirs, "x"))

    def meanwhile() -> None:
        other.start()
        other.join(0.5)  # on a local disk it waits for A to be done

    ours.fs = _Paused(ours.fs, meanwhile)  # type: ignore[assignment]
    publish_mark(ours, "y")
    other.join()
    assert read_marks(theirs) == {"x"}
    verify(theirs, theirs.need("notes", DS))


def test_racing_writers_and_readers_find_no_fault(open_store: Callable[[], PartitionStore]) -> None:
    result = race(open_store, rounds=15, writers=3, readers=2)
    assert result.faults == []
    assert result.reads > 0


def test_replaced_files_stay_for_readers_until_the_grace_period_is_over(tmp_path: Path) -> None:
    tables = TableStore(PartitionStore(str(tmp_path), grace_seconds=60))
    first = tables.write(NOTES, DS, notes(("a", 1, None)))
    second = tables.write(NOTES, DS, notes(("b", 2, None)))
    assert tables.read(first).column("user_id").to_pylist() == ["a"]
    assert [file.path for file in second.replaced] == [file.path for file in first.files]
    impatient = TableStore(PartitionStore(str(tmp_path), grace_seconds=0))
    third = impatient.write(NOTES, DS, notes(("c", 3, None)))
    assert [(file.path, file.is_removed) for file in third.replaced] == [
        (first.files[0].path, True),
        (second.files[0].path, True),
    ]
    held = {path.name for path in (tmp_path / "notes" / f"ds={DS}").iterdir()}
    assert held == {"_manifest.json", third.files[0].path}


def test_file_that_is_stored_again_under_its_name_is_never_written_in_place(tmp_path: Path) -> None:
    tables = TableStore(PartitionStore(str(tmp_path), grace_seconds=0))
    for rows in (notes(("a", 1, None)), notes(*(("a", at, "long") for at in range(5000)))):
        path = Path(tables.paths([tables.write(NOTES, DS, rows)])[0])
        with path.open("rb") as held:
            tables.write(NOTES, DS, rows)
            assert os.fstat(held.fileno()).st_ino != path.stat().st_ino
            assert held.read() == path.read_bytes()


def test_file_that_is_current_again_is_no_longer_listed_as_replaced(tmp_path: Path) -> None:
    store = PartitionStore(str(tmp_path), grace_seconds=60)
    first = publish_mark(store, "x")
    publish_mark(store, "y")
    again = publish_mark(store, "x")
    assert again.files == first.files
    listed = {file.path for file in again.replaced}
    assert len(listed) == 3 and listed.isdisjoint(file.path for file in again.files)
    assert PartitionStore(str(tmp_path)).need("notes", DS) == again


def test_part_that_is_stored_again_before_it_is_published_is_not_removed_as_replaced(tmp_path: Path) -> None:
    """X stands and Y replaces it; a cluster's task stores X again, then Z is published, and after it X."""
    store, hasty = PartitionStore(str(tmp_path), grace_seconds=60), PartitionStore(str(tmp_path), grace_seconds=0)
    publish_mark(store, "x")
    publish_mark(store, "y")
    with store.staging() as folder:
        path = folder / "part-00000.bin"
        path.write_text("x 0", encoding="utf-8")
        os.utime(path, (0, 0))  # staged long ago
        stored = store.put_file("notes", DS, path, 1)
    publish_mark(hasty, "z")
    verify(store, store.publish(asset="notes", ds=DS, staged=[stored]))


def test_missing_file_that_the_manifest_lists_is_not_taken_for_a_replaced_one(open_store: Callable[[], PartitionStore]) -> None:
    store = open_store()
    manifest = publish_mark(store, "x")
    store.fs.rm_file(store.file_path(manifest, manifest.files[1]))
    with pytest.raises(StorageError, match=r"notes/2024-01-02: files \['part-00001.bin'\] are missing"):
        read_marks(store)


def test_remote_writes_of_equal_content_have_file_names_of_their_own() -> None:
    store = memory_store()
    first, again = publish_mark(store, "x"), publish_mark(store, "x")
    assert first.digest == again.digest
    assert {file.path for file in first.files}.isdisjoint(file.path for file in again.files)
