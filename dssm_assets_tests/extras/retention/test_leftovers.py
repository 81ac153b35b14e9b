"""Leftovers are found and removed after the grace period; what anybody needs stays."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import pytest

from dssm_assets.extras.retention.leftovers import Kind, Leftover, find_bundles, find_in_store, find_temporary
from dssm_assets.service.bundle.bundle_store import BundleStore
from dssm_assets.storage.local_files import ScratchFolder, find_own_folder
from dssm_assets.storage.manifest import Manifest
from dssm_assets.storage.overlay import OverlayStore
from dssm_assets.storage.partitions import PartitionStore
from dssm_assets_tests.service.bundle.stored_bundles import bundles_on_disk, publish, store_of
from dssm_assets_tests.storage.races import publish_mark
from dssm_assets_tests.storage.stores import DS, files_of, stores, verify

SOON = time.time() + 3600
"""Everything is older than that."""
LONG_AGO = 1.0


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[PartitionStore]:
    yield stores(tmp_path)[request.param]


def _put(store: PartitionStore, path: str, content: bytes = b"1234") -> str:
    full = f"{store.root}/{path}"
    store.fs.makedirs(full.rpartition("/")[0], exist_ok=True)
    store.fs.pipe_file(full, content)
    return full


def _remove(leftovers: Iterable[Leftover]) -> Iterator[Leftover]:
    for leftover in leftovers:
        leftover.remove()
        yield leftover


def _clean(store: PartitionStore, before: float, kept: Collection[str] = (), *, removes: bool = True) -> dict[str, str]:
    found = find_in_store(store, before, kept)
    return {leftover.path: leftover.kind for leftover in (_remove(found) if removes else found)}


def test_files_that_no_manifest_needs_are_removed_and_the_partition_stays(store: PartitionStore) -> None:
    publish_mark(store, "x")
    whole = files_of(store)
    left = _put(store, f"notes/ds={DS}/part-00000-ffffffffffff.bin")
    never = _put(store, "model/ds=2024-01-05/weights-ffffffffffff.bin")
    shared = _put(store, "notes/_shared/part-00000-ffffffffffff.bin")
    assert _clean(store, LONG_AGO) == {}, "nothing is that old"
    assert _clean(store, SOON, removes=False) == dict.fromkeys((left, never, shared), Kind.PARTITION)
    assert store.fs.exists(left)
    assert _clean(store, SOON) == dict.fromkeys((left, never, shared), Kind.PARTITION)
    assert files_of(store) == whole
    assert _clean(store, SOON) == {}


def test_shared_files_go_when_no_day_lists_them_and_their_readers_have_had_the_grace_period(store: PartitionStore) -> None:
    old = _publish_snapshot(store, "2024-01-01", "old")
    store.publish_shared(old, "2024-01-02")
    (file,) = old.files
    path = store.file_path(old, file)
    _publish_snapshot(store, "2024-01-01", "new")
    assert _clean(store, SOON) == {}, "the second day lists it"
    verify(store, store.need("items", "2024-01-02"))
    _publish_snapshot(store, "2024-01-02", "new")
    assert _clean(store, time.time() - 60) == {}, "replaced just now"
    assert _clean(store, SOON, removes=False) == {path: Kind.PARTITION}
    assert _clean(store, SOON) == {path: Kind.PARTITION}
    for ds in store.days("items"):
        verify(store, store.need("items", ds))


def _publish_snapshot(store: PartitionStore, ds: str, content: str) -> Manifest:
    with store.staging() as folder:
        (folder / "items.parquet").write_text(content)
        return store.publish(asset="items", ds=ds, staged=[(folder / "items.parquet", 1)], is_shared=True)


def test_replaced_files_are_removed_after_the_grace_period(store: PartitionStore) -> None:
    former = publish_mark(store, "x")
    now = publish_mark(store, "y")
    assert _clean(store, time.time() - 60) == {}, "replaced just now"
    assert set(_clean(store, SOON)) == {store.file_path(former, file) for file in former.files}
    verify(store, now)


def test_files_that_others_list_stay_until_they_do_not(store: PartitionStore) -> None:
    store.grace_seconds = 0.0
    former = publish_mark(store, "x")
    listed = {store.file_path(former, former.files[0])}
    store.leaves_files = True
    now = publish_mark(store, "y")
    assert set(_clean(store, SOON, listed)) == {store.file_path(former, file) for file in former.files[1:]}
    store.remove(now.asset, now.ds)
    assert set(_clean(store, SOON, listed)) == {store.file_path(now, file) for file in now.files}
    assert set(_clean(store, SOON)) == listed


def test_staged_files_and_partitions_of_experiments_are_cleaned_too(store: PartitionStore) -> None:
    overlay = OverlayStore(store, "hot")
    publish_mark(overlay, "x")
    left = _put(overlay, f"notes/ds={DS}/part-00000-ffffffffffff.bin")
    staged = _put(store, "_staging/abandoned/deep/part.parquet")
    bundle = _put(store, "serving/_staging/abandoned/file")
    folders = {path.rpartition("/")[0].removesuffix("/deep"): Kind.TEMPORARY for path in (staged, bundle)}
    assert _clean(store, SOON) == {left: Kind.PARTITION, **folders}
    assert not any("_staging" in path for path in files_of(store))
    verify(overlay, overlay.need("notes", DS))


def test_staging_folder_in_use_stays(tmp_path: Path) -> None:
    store = PartitionStore(str(tmp_path))
    with store.staging() as folder, store.staging_in_store() as shared:
        assert _clean(store, SOON) == {}
        assert folder.exists() and Path(shared).exists()
    assert not folder.exists() and not Path(shared).exists()


@pytest.mark.parametrize("kind", ["local", "memory"])
def test_bundles_that_the_pointer_does_not_list_are_removed(kind: str, tmp_path: Path) -> None:
    store = store_of(kind, tmp_path)
    publish(store, "a")
    served = publish(store, "b").bundle_id
    stored = bundles_on_disk(store)
    partial = f"{store.root}/bundles/2024-01-09-0123456789ab"
    store.fs.makedirs(partial, exist_ok=True)
    store.fs.pipe_file(f"{partial}/item_vectors.arrow", b"12345")
    assert list(find_bundles(store, LONG_AGO)) == []
    (found,) = _remove(find_bundles(store, SOON))
    assert (found.kind, found.path, found.bytes) == (Kind.BUNDLE, partial, 5)
    assert bundles_on_disk(store) == stored
    store.fetch(served)


def test_bundle_of_a_publisher_that_was_killed_before_the_first_pointer_is_removed(tmp_path: Path) -> None:
    store = BundleStore(str(tmp_path))
    (tmp_path / "bundles" / "2024-01-09-0123456789ab").mkdir(parents=True)
    assert len(list(_remove(find_bundles(store, SOON)))) == 1
    assert list((tmp_path / "bundles").iterdir()) == []


def test_temporary_folders_and_parts_of_fetched_files_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary, scratch, cache = (tmp_path / name for name in ("tmp", "scratch", "cache"))
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    for parent in (temporary, scratch):
        parent.mkdir()
    ours = [find_own_folder(parent, makes=True) or tmp_path for parent in (temporary, scratch)]
    left = [ours[0] / "source-a", ours[0] / "fit-b", ours[1] / "duckdb-c"]
    others = [temporary / "dssm-backup", temporary / "dssm-fit-b", scratch / "dssm-duckdb-c", cache / "dssm_model" / "0123"]
    for path in (*left, *others):
        path.mkdir(parents=True)
        (path / "file").write_bytes(b"1234")
    (ours[0] / "linked").symlink_to(others[0])
    part = cache / "dssm_model" / "0123" / "tmpx.part"
    part.write_bytes(b"12")
    found = {found.path: found.bytes for found in _remove(find_temporary([scratch], cache, SOON))}
    assert found == {**{str(path): 4 for path in left}, str(part): 2}
    assert not any(path.exists() for path in (*left, part))
    assert all((path / "file").exists() for path in others)


@pytest.mark.parametrize("kind", ["folder", "link", "file"])
def test_what_others_have_put_where_our_temporary_folders_would_be_stays(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    name, photos = tmp_path / "tmp" / f"dssm-assets-{os.geteuid()}", tmp_path / "photos" / "fit-2019"
    photos.mkdir(parents=True)
    (tmp_path / "tmp").mkdir()
    if kind == "folder":
        photos.parent.rename(name)
    elif kind == "link":
        name.symlink_to(photos.parent)
    else:
        name.write_bytes(b"1234")
    before = sorted(tmp_path.rglob("*"))
    with ScratchFolder("source"):
        assert list(_remove(find_temporary([tmp_path / "tmp"], tmp_path / "cache", SOON))) == []
    assert sorted(tmp_path.rglob("*")) == before


def test_folder_of_another_user_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    own = find_own_folder(tmp_path, makes=True) or tmp_path
    (own / "source-a").mkdir()
    assert len(list(find_temporary([tmp_path], tmp_path / "cache", SOON))) == 1
    own.rename(tmp_path / "dssm-assets-4711")
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    assert list(find_temporary([tmp_path], tmp_path / "cache", SOON)) == []
