"""Bundles are stored whole, served by one pointer, rolled back and removed."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from dssm_assets.core.errors import PartitionMissingError, PartitionReplacedError, StorageError
from dssm_assets.service.bundle import bundle_store as bundles
from dssm_assets.service.bundle.bundle_store import BundleStore, FetchedBundle, Pointer, Published, after_publish, bundle_id_of
from dssm_assets_tests.service.bundle.stored_bundles import bundles_on_disk, marks, publish, store_of


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> BundleStore:
    return store_of(request.param, tmp_path)


def test_publish_stores_the_files_of_the_manifest(store: BundleStore) -> None:
    made = publish(store, "a", files=2)
    assert made.manifest["files"] == {
        "deep/file1": {"sha256": hashlib.sha256(b"a 1").hexdigest(), "bytes": 3},
        "file0": {"sha256": hashlib.sha256(b"a 0").hexdigest(), "bytes": 3},
    }
    assert (made.manifest["format"], made.manifest["ds"], made.manifest["mark"]) == (2, "2024-01-02", "a")
    assert made.bundle_id == bundle_id_of(made.manifest) and made.bundle_id.startswith("2024-01-02-")
    assert store.manifest(made.bundle_id) == made.manifest
    assert store.fs.cat_file(f"{store.folder(made.bundle_id)}/deep/file1") == b"a 1"
    store.fetch(made.bundle_id)
    pointer = json.loads(store.fs.cat_file(f"{store.root}/current.json"))
    assert (pointer["bundle_id"], pointer["previous"], pointer["ds"]) == (made.bundle_id, None, "2024-01-02")


def test_equal_bundles_have_equal_ids_and_are_stored_once(store: BundleStore) -> None:
    first, other, again = publish(store, "a"), publish(store, "b"), publish(store, "a")
    assert first.bundle_id == again.bundle_id != other.bundle_id
    assert again.is_current
    assert again.pointer.previous == other.bundle_id
    assert bundles_on_disk(store) == {first.bundle_id, other.bundle_id}


def test_publish_keeps_the_previous_bundle_and_removes_older_ones(store: BundleStore) -> None:
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


def test_a_bundle_of_an_earlier_day_is_stored_and_not_served(store: BundleStore) -> None:
    now = publish(store, "now", ds="2024-01-05")
    old = publish(store, "old", ds="2024-01-04")
    assert not old.is_current
    assert store.pointer().bundle_id == now.bundle_id  # type: ignore[union-attr]
    assert store.rollback(old.bundle_id).ds == "2024-01-04"


def test_rollback_serves_the_previous_bundle(store: BundleStore) -> None:
    a, b, c = (publish(store, mark).bundle_id for mark in "abc")
    assert store.rollback().bundle_id == b
    assert store.pointer().bundle_id == b  # type: ignore[union-attr]
    assert store.rollback().bundle_id == a
    with pytest.raises(PartitionMissingError, match=f"served before {a}, got none.*stored bundles: {b}, {c}"):
        store.rollback()
    assert store.rollback(c).bundle_id == c
    assert marks(store, c) == {"c"}


def test_rollback_refuses_a_bundle_that_is_not_stored(store: BundleStore) -> None:
    with pytest.raises(PartitionMissingError, match="a published bundle, got none"):
        store.rollback()
    made = publish(store, "a")
    with pytest.raises(PartitionMissingError, match="got 2020-01-01-000000000000"):
        store.rollback("2020-01-01-000000000000")
    assert store.pointer() == made.pointer


def test_a_damaged_bundle_is_refused_and_repaired_by_publishing_again(store: BundleStore) -> None:
    first, second = publish(store, "a"), publish(store, "b")
    store.fs.pipe_file(f"{store.folder(first.bundle_id)}/file4", b"x 4")
    store.fs.rm_file(f"{store.folder(first.bundle_id)}/deep/file3")
    with pytest.raises(StorageError, match="deep/file3 is missing; file4 has another sha256"):
        store.fetch(first.bundle_id)
    with pytest.raises(StorageError, match="publish the bundle again"):
        store.rollback()
    assert store.pointer() == second.pointer
    publish(store, "a")
    store.fetch(first.bundle_id)
    assert marks(store, first.bundle_id) == {"a"}


def test_verify_refuses_a_changed_manifest(store: BundleStore) -> None:
    made = publish(store, "a")
    store.fs.pipe_file(f"{store.folder(made.bundle_id)}/manifest.json", json.dumps({**made.manifest, "mark": "z"}).encode())
    with pytest.raises(StorageError, match=r"manifest\.json"):
        store.fetch(made.bundle_id)


def publish_delta(store: BundleStore, mark: str, base: str, served: str, keep: int = 2) -> Published:
    """Publishes a delta whose only file of its own holds the mark."""
    with store.staging() as folder:
        (folder / "deep").mkdir()
        (folder / "deep/file1").write_text(mark)
        return store.publish(folder, {"ds": "2024-01-02", "mark": mark}, keep, base=base, served=served)


def test_a_delta_has_the_files_of_its_base_and_its_own(store: BundleStore) -> None:
    base = publish(store, "a", files=4)
    made = publish_delta(store, "d", base.bundle_id, base.bundle_id)
    assert made.manifest["delta"] == {"base": base.bundle_id}
    store.fetch(made.bundle_id)
    contents = {name: store.fs.cat_file(f"{store.folder(made.bundle_id)}/{name}") for name in made.manifest["files"]}
    assert contents == {"file0": b"a 0", "deep/file1": b"d", "file2": b"a 2", "deep/file3": b"a 3"}
    store.remove(base.bundle_id)
    store.fetch(made.bundle_id)
    with pytest.raises(PartitionMissingError, match=base.bundle_id):
        publish_delta(store, "e", base.bundle_id, made.bundle_id)


@pytest.mark.parametrize("name", ["file2", "deep/file1"])
def test_a_delta_of_a_damaged_bundle_is_refused(store: BundleStore, name: str) -> None:
    base = publish(store, "a", files=4)
    store.fs.pipe_file(f"{store.folder(base.bundle_id)}/{name}", b"x 2")
    with pytest.raises(StorageError, match=f"{name} has another sha256"):
        publish_delta(store, "d", base.bundle_id, base.bundle_id)
    assert bundles_on_disk(store) == {base.bundle_id}
    assert store.pointer() == base.pointer


def test_the_pointer_never_lists_a_bundle_that_a_killed_publisher_was_removing(
    store: BundleStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [publish(store, mark, keep=2).bundle_id for mark in "ab"]
    monkeypatch.setattr(store, "remove", pytest.fail)
    with pytest.raises(pytest.fail.Exception):
        publish(store, "c", keep=2)
    pointer = Pointer.from_json(store.fs.cat_file(f"{store.root}/current.json"))
    assert pointer.stored[0] == ids[1], "the first one is a leftover"
    assert bundles_on_disk(store) == {*ids, pointer.bundle_id}


def test_a_rollback_to_a_bundle_that_is_pruned_meanwhile_is_refused(
    store: BundleStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, *_, last = (publish(store, mark) for mark in "abc")
    fetch = store.fetch

    def prune_then_fetch(bundle_id: str) -> FetchedBundle:
        store.replace_pointer(lambda now: (now or last.pointer).without([bundle_id]))
        return fetch(bundle_id)

    monkeypatch.setattr(store, "fetch", prune_then_fetch)
    with pytest.raises(PartitionMissingError, match=f"a bundle that is stored, got {first.bundle_id}"):
        store.rollback(first.bundle_id)


def test_damaged_bundles_of_former_days_do_not_stop_the_next_one(store: BundleStore) -> None:
    old, *_ = (publish(store, mark).bundle_id for mark in "abc")
    store.fs.pipe_file(f"{store.folder(old)}/manifest.json", b"{")
    assert publish(store, "d", keep=3).pruned == (old,)
    assert publish(store, "e").is_current


def test_whole_bundles_are_kept_by_their_number_and_two_deltas(store: BundleStore) -> None:
    old, base = publish(store, "a").bundle_id, publish(store, "b").bundle_id
    deltas = [base]
    for mark in "def":
        deltas.append(publish_delta(store, mark, base, deltas[-1]).bundle_id)
    assert bundles_on_disk(store) == {old, base, *deltas[-2:]}
    assert store.rollback().bundle_id == deltas[-2]
    assert store.rollback().bundle_id == base
    # The next whole bundle leaves only what a rollback needs.
    after = publish_delta(store, "g", base, base).bundle_id
    whole = publish(store, "h", keep=2)
    assert bundles_on_disk(store) == {base, after, whole.bundle_id}
    assert whole.pointer.previous == after
    with pytest.raises(PartitionReplacedError, match=f"expected {after}, as when the delta began, got {whole.bundle_id}"):
        publish_delta(store, "i", base, after)
    assert store.pointer() == whole.pointer


def test_a_delta_of_several_publishers_is_published_once(store: BundleStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another publisher moves the pointer between the look at it and its replacement."""
    base = publish(store, "a").bundle_id
    check, others = BundleStore._check_served, []

    def check_late(self: BundleStore, pointer: Pointer | None, expected: str) -> None:
        check(self, pointer, expected)
        if not others:
            others.append("b")
            self.replace_pointer(lambda before: after_publish(before, "2024-01-02-b", "2024-01-02"))

    monkeypatch.setattr(BundleStore, "_check_served", check_late)
    with pytest.raises(PartitionReplacedError, match="got 2024-01-02-b"):
        publish_delta(store, "d", base, base)
    assert store.pointer().bundle_id == "2024-01-02-b"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b"{}", b'{"bundle_id": "x", "previous": null, "ds": "1", "trail": ["y"], "stored": []}']
)
def test_an_invalid_pointer_is_refused_and_not_overwritten(store: BundleStore, text: bytes) -> None:
    publish(store, "a")
    store.fs.pipe_file(f"{store.root}/current.json", text)
    with pytest.raises(StorageError, match="not a pointer"):
        publish(store, "b")
    assert store.fs.cat_file(f"{store.root}/current.json") == text


def test_a_failed_publication_leaves_the_served_bundle(store: BundleStore, monkeypatch: pytest.MonkeyPatch) -> None:
    before = publish(store, "a")
    monkeypatch.setattr(bundles, "put_if", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        publish(store, "b")
    with pytest.raises(OSError, match="disk full"):
        publish_delta(store, "d", before.bundle_id, before.bundle_id)
    monkeypatch.undo()
    assert store.pointer() == before.pointer
    assert marks(store, before.bundle_id) == {"a"}


def test_bundle_files_are_readable_by_others_and_staging_is_empty(tmp_path: Path) -> None:
    store = BundleStore(str(tmp_path))
    made = publish(store, "a")
    folder = tmp_path / "bundles" / made.bundle_id
    modes = {oct(path.stat().st_mode & 0o777) for path in folder.rglob("*") if path.is_file()}
    assert modes == {"0o644"}
    assert oct(folder.stat().st_mode & 0o777) == "0o755"
    assert oct((tmp_path / "current.json").stat().st_mode & 0o777) == "0o644"
    assert list((tmp_path / "_staging").iterdir()) == []


def published(*served: str) -> Pointer:
    """Returns the pointer after publishing bundles named `<day><letter>`, the day a digit."""
    pointer = None
    for bundle in served:
        pointer = after_publish(pointer, bundle, bundle[0])
    assert pointer is not None
    return pointer


@pytest.mark.parametrize(
    ("stored", "trail"),
    [("1a", "1a"), ("1a 2b 2c", "1a 2b 2c"), ("1a 3b 2c", "1a 3b"), ("1a 1b 1a", "1b 1a"), ("1a 1a", "1a")],
)
def test_pointer_serves_the_newest_bundle_of_the_last_day(stored: str, trail: str) -> None:
    pointer, served = published(*stored.split()), tuple(trail.split())
    assert (pointer.trail, pointer.ds, pointer.bundle_id) == (served, served[-1][0], served[-1])
    assert pointer.previous == (served[-2] if len(served) > 1 else None)
    assert pointer.stored == tuple(reversed(dict.fromkeys(reversed(stored.split()))))


def test_repeated_rollbacks_go_further_back() -> None:
    first = published("1a", "2b", "3c").back_to("2b", "2")
    assert first == Pointer(("1a", "2b"), ("1a", "2b", "3c"), "2")
    assert first.back_to("1a", "1") == Pointer(("1a",), ("1a", "2b", "3c"), "1")
    assert after_publish(first, "3d", "3") == Pointer(("1a", "2b", "3d"), ("1a", "2b", "3c", "3d"), "3")
    # What was rolled back can be served again, and then has the one before it behind it.
    assert first.back_to("3c", "3") == Pointer(("1a", "2b", "3c"), ("1a", "2b", "3c"), "3")


@pytest.mark.parametrize(("keep", "gone"), [(2, ("1a", "2b")), (3, ("1a",)), (4, ()), (9, ()), (1, ("1a", "2b"))], ids=str)
def test_surplus_is_the_oldest_bundles_without_served_and_previous(keep: int, gone: tuple[str, ...]) -> None:
    pointer = published("1a", "2b", "3c", "4d")
    assert pointer.surplus(keep, {}) == gone
    left = pointer.without(gone)
    assert (left.bundle_id, left.previous) == ("4d", "3c")
    assert left.stored == left.trail == tuple(kept for kept in pointer.stored if kept not in gone)
    back = pointer.back_to("2b", "2")
    assert (back.surplus(2, {}), back.surplus(3, {})) == (("3c", "4d"), ("3c",))


def test_names_reach_the_disk_before_the_pointer_and_the_pointer_before_publishing_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order of fsync and rename calls, which is what a power cut would show."""
    events: list[str] = []
    fsync, rename, replace = os.fsync, Path.rename, Path.replace

    def name_of(path: object) -> str:
        found = str(path)
        return "staged" if "_staging" in found else found.removeprefix(f"{tmp_path}").strip("/").partition("/2024")[0] or "root"

    def record_sync(handle: int) -> None:
        path = Path(f"/proc/self/fd/{handle}").readlink()
        if path.is_dir():
            events.append(f"sync {name_of(path)}")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", record_sync)
    monkeypatch.setattr(Path, "rename", lambda path, to: (events.append(f"name {name_of(to)}"), rename(path, to))[1])
    monkeypatch.setattr(Path, "replace", lambda path, to: (events.append(f"name {name_of(to)}"), replace(path, to))[1])
    publish(BundleStore(str(tmp_path)), "a")
    staged = [event for event in events if event == "sync staged"]
    assert len(staged) == 2, "the folder and the one in it"
    assert events[2:] == ["name bundles", "sync bundles", "name current.json", "sync root"]
