"""Bundles are placed whole, served by one pointer, rolled back and cleared away; a racing reader sees one whole bundle."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from dssm_assets.core.errors import PartitionMissingError, StorageError
from dssm_assets.storage.bundle_store import BundleStore, Published, content_digest

FILES = 12


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> BundleStore:
    return BundleStore(str(tmp_path / "serving") if request.param == "local" else f"memory://bundles-{uuid.uuid4().hex}")


def publish(store: BundleStore, mark: str, *, ds: str = "2024-01-02", keep: int = 3, files: int = FILES) -> Published:
    """Publishes a bundle all of whose files hold its mark."""
    with store.staging() as folder:
        (folder / "deep").mkdir()
        for number in range(files):
            (folder / ("deep" if number % 2 else ".") / f"file{number}").write_text(f"{mark} {number}")
        return store.publish(folder, {"ds": ds, "mark": mark}, keep)


def marks(store: BundleStore, bundle_id: str) -> set[str]:
    """Returns the marks that the manifest and the files of a bundle hold."""
    manifest = store.manifest(bundle_id)
    contents = [store.fs.cat_file(f"{store.folder(bundle_id)}/{name}").decode() for name in manifest["files"]]
    assert len(contents) == FILES
    return {manifest["mark"], *(content.split()[0] for content in contents)}


def bundles_on_disk(store: BundleStore) -> set[str]:
    return {str(path).rstrip("/").rpartition("/")[2] for path in store.fs.ls(f"{store.root}/bundles", detail=False)}


def test_a_bundle_is_what_its_manifest_says(store: BundleStore) -> None:
    made = publish(store, "a", files=2)
    assert made.manifest["files"] == {
        "deep/file1": {"sha256": hashlib.sha256(b"a 1").hexdigest(), "bytes": 3},
        "file0": {"sha256": hashlib.sha256(b"a 0").hexdigest(), "bytes": 3},
    }
    assert (made.manifest["format"], made.manifest["ds"], made.manifest["mark"]) == (1, "2024-01-02", "a")
    assert made.bundle_id == f"2024-01-02-{content_digest(made.manifest)[:12]}"
    assert store.manifest(made.bundle_id) == made.manifest
    assert store.fs.cat_file(f"{store.folder(made.bundle_id)}/deep/file1") == b"a 1"
    store.verify(made.bundle_id)
    pointer = json.loads(store.fs.cat_file(f"{store.root}/current.json"))
    assert (pointer["bundle_id"], pointer["previous"], pointer["ds"]) == (made.bundle_id, None, "2024-01-02")


def test_equal_content_has_an_equal_id_and_is_stored_once(store: BundleStore) -> None:
    first, other, again = publish(store, "a"), publish(store, "b"), publish(store, "a")
    assert first.bundle_id == again.bundle_id != other.bundle_id
    assert again.is_current
    assert again.pointer.previous == other.bundle_id
    assert bundles_on_disk(store) == {first.bundle_id, other.bundle_id}


def test_the_previous_stays_and_the_older_are_cleared_away(store: BundleStore) -> None:
    ids = [publish(store, mark, keep=3).bundle_id for mark in "abcd"]
    last = publish(store, "e", keep=3)
    assert last.pruned == (ids[1],)
    assert bundles_on_disk(store) == {ids[2], ids[3], last.bundle_id}
    pointer = store.pointer()
    assert pointer is not None
    assert (pointer.bundle_id, pointer.previous, pointer.stored) == (last.bundle_id, ids[3], (ids[2], ids[3], last.bundle_id))
    # Even if one alone is to stay, the one before it does.
    assert publish(store, "f", keep=1).pruned == (ids[2], ids[3])
    assert bundles_on_disk(store) == {last.bundle_id, store.pointer().bundle_id}  # type: ignore[union-attr]


def test_a_backfill_of_an_earlier_day_is_stored_and_not_served(store: BundleStore) -> None:
    now = publish(store, "now", ds="2024-01-05")
    old = publish(store, "old", ds="2024-01-04")
    assert not old.is_current
    assert store.pointer().bundle_id == now.bundle_id  # type: ignore[union-attr]
    assert store.rollback(old.bundle_id).ds == "2024-01-04"


def test_rollback_serves_the_bundle_before(store: BundleStore) -> None:
    a, b, c = (publish(store, mark).bundle_id for mark in "abc")
    assert store.rollback().bundle_id == b
    assert store.pointer().bundle_id == b  # type: ignore[union-attr]
    assert store.rollback().bundle_id == a
    with pytest.raises(PartitionMissingError, match=f"served before {a}, got none.*stored: {b}, {c}"):
        store.rollback()
    assert store.rollback(c).bundle_id == c
    assert marks(store, c) == {"c"}


def test_a_rollback_to_nothing_or_to_what_is_not_there_is_refused(store: BundleStore) -> None:
    with pytest.raises(PartitionMissingError, match="a published bundle, got none"):
        store.rollback()
    made = publish(store, "a")
    with pytest.raises(PartitionMissingError, match="got 2020-01-01-000000000000"):
        store.rollback("2020-01-01-000000000000")
    assert store.pointer() == made.pointer


def test_a_spoilt_bundle_is_named_not_served_and_mended_by_publishing_again(store: BundleStore) -> None:
    first, second = publish(store, "a"), publish(store, "b")
    store.fs.pipe_file(f"{store.folder(first.bundle_id)}/file4", b"x 4")
    store.fs.rm_file(f"{store.folder(first.bundle_id)}/deep/file3")
    with pytest.raises(StorageError, match=r"files \['deep/file3', 'file4'\] differ"):
        store.verify(first.bundle_id)
    with pytest.raises(StorageError, match="publish it again"):
        store.rollback()
    assert store.pointer() == second.pointer
    publish(store, "a")
    store.verify(first.bundle_id)
    assert marks(store, first.bundle_id) == {"a"}


def test_a_manifest_that_was_changed_is_not_the_bundles(store: BundleStore) -> None:
    made = publish(store, "a")
    store.fs.pipe_file(f"{store.folder(made.bundle_id)}/manifest.json", json.dumps({**made.manifest, "mark": "z"}).encode())
    with pytest.raises(StorageError, match=r"manifest\.json"):
        store.verify(made.bundle_id)


def test_a_pointer_that_is_none_is_an_error_and_stays(store: BundleStore) -> None:
    publish(store, "a")
    store.fs.pipe_file(f"{store.root}/current.json", b"{")
    with pytest.raises(StorageError, match="not a pointer"):
        publish(store, "b")
    assert store.fs.cat_file(f"{store.root}/current.json") == b"{"


def test_a_publication_that_fails_leaves_what_was_served(store: BundleStore, monkeypatch: pytest.MonkeyPatch) -> None:
    before = publish(store, "a")
    monkeypatch.setattr(BundleStore, "_swap", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        publish(store, "b")
    monkeypatch.undo()
    assert store.pointer() == before.pointer
    assert marks(store, before.bundle_id) == {"a"}


def test_files_are_readable_by_others_and_nothing_is_left_aside(tmp_path: Path) -> None:
    store = BundleStore(str(tmp_path))
    made = publish(store, "a")
    folder = tmp_path / "bundles" / made.bundle_id
    modes = {oct(path.stat().st_mode & 0o777) for path in folder.rglob("*") if path.is_file()}
    assert modes == {"0o644"}
    assert oct(folder.stat().st_mode & 0o777) == "0o755"
    assert oct((tmp_path / "current.json").stat().st_mode & 0o777) == "0o644"
    assert list((tmp_path / "_staging").iterdir()) == []


class Reader(threading.Thread):
    """Opens the current bundle again and again and notes every one that was not whole."""

    def __init__(self, store: BundleStore) -> None:
        super().__init__(daemon=True)
        self.store, self.stop = store, threading.Event()
        self.seen: dict[str, int] = {}
        self.vanished = 0
        self.faults: list[str] = []

    def run(self) -> None:
        while not self.stop.is_set():
            pointer = self.store.pointer()
            if pointer is None:
                continue
            try:
                found = marks(self.store, pointer.bundle_id)
            except (FileNotFoundError, PartitionMissingError):
                now = self.store.pointer()
                # Only a bundle that was cleared away in the meantime may vanish: then the pointer has gone on by two.
                if now is not None and pointer.bundle_id in (now.bundle_id, now.previous):
                    self.faults.append(f"{pointer.bundle_id} is served and not whole")
                self.vanished += 1
                continue
            if len(found) != 1:
                self.faults.append(f"{pointer.bundle_id} mixes {found}")
            self.seen[pointer.bundle_id] = self.seen.get(pointer.bundle_id, 0) + 1


def test_a_racing_reader_always_sees_one_whole_bundle(store: BundleStore) -> None:
    publish(store, "m0")
    readers = [Reader(store) for _ in range(2)]
    for reader in readers:
        reader.start()
    begun, count = time.monotonic(), 1
    while count < 400 and (time.monotonic() - begun < 2 or min(len(reader.seen) for reader in readers) < 10):
        publish(store, f"m{count}", keep=3)
        if count % 7 == 0:
            store.rollback()
        count += 1
    for reader in readers:
        reader.stop.set()
        reader.join(10)
    assert [fault for reader in readers for fault in reader.faults] == []
    assert all(len(reader.seen) >= 10 for reader in readers), [len(reader.seen) for reader in readers]


def _publish_for_ever(root: str, name: str) -> None:
    store = BundleStore(root)
    for number in range(10**6):
        publish(store, f"{name}{number}")


def test_a_publisher_that_is_killed_leaves_a_whole_bundle_served(tmp_path: Path) -> None:
    store = BundleStore(str(tmp_path))
    publish(store, "first")
    context = multiprocessing.get_context("spawn")
    for attempt in range(3):
        process = context.Process(target=_publish_for_ever, args=(str(tmp_path), f"k{attempt}-"), daemon=True)
        process.start()
        deadline = time.monotonic() + 60
        before = store.pointer()
        while store.pointer() == before and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05 + 0.037 * attempt)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join(10)
        pointer: Any = store.pointer()
        assert pointer is not None and pointer != before
        store.verify(pointer.bundle_id)
        store.verify(pointer.previous)
        assert len(marks(store, pointer.bundle_id)) == 1
    assert publish(store, "after").is_current


def test_two_publishers_at_once_lose_nothing(tmp_path: Path) -> None:
    """Each publishes ten; every bundle is in the pointer's list exactly once, in some order."""
    stores = [BundleStore(str(tmp_path)) for _ in range(2)]
    threads = [
        threading.Thread(target=lambda s=s, n=n: [publish(s, f"p{n}-{i}", keep=100) for i in range(10)])
        for n, s in enumerate(stores)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    pointer = stores[0].pointer()
    assert pointer is not None
    assert len(pointer.stored) == len(set(pointer.stored)) == 20
    assert set(pointer.stored) == bundles_on_disk(stores[0])
