"""Bundles are placed whole, served by one pointer, rolled back and cleared away."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from dssm_assets.core.errors import PartitionMissingError, StorageError
from dssm_assets.storage.bundle_store import BundleStore, content_digest
from dssm_assets.storage.pointer_file import PointerFile
from dssm_assets_tests.storage.bundles import bundles_on_disk, marks, publish, store_of


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> BundleStore:
    return store_of(request.param, tmp_path)


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
    monkeypatch.setattr(PointerFile, "_replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
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
