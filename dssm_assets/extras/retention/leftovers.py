"""Files of killed runs, and of partitions that were written again: listed after a grace period.

    temporary folders   <temporary folder>/dssm-*, <scratch>/dssm-*, <root>/_staging/*, <root>/serving/_staging/*
    partition files     in the folder of a partition, but not in its manifest, or replaced
    bundles             folders that current.json does not list: of a publisher that was killed

On a local disk a temporary folder stays while the process that made it lives, however old it is. Remove a leftover before you ask
for the next: until then locks keep its writers out. A lifecycle rule of the bucket (AbortIncompleteMultipartUpload) removes parts of
uploads to S3 that were never completed.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any

from dssm_assets.storage import layout
from dssm_assets.storage.bundles import BundleStore
from dssm_assets.storage.local_files import LOCK, PREFIX, find_abandoned
from dssm_assets.storage.manifest import Manifest
from dssm_assets.storage.overlay import experiment_names
from dssm_assets.storage.partitions import PartitionStore


class Kind(StrEnum):
    """A kind of leftover."""

    TEMPORARY = "temporary folders"
    PARTITION = "partition files"
    BUNDLE = "bundles"
    EXPIRED = "expired partitions"


@dataclass(frozen=True)
class Leftover:
    """Something that nobody needs: its kind, its path, its size in bytes, and a function that removes it."""

    kind: Kind
    path: str
    bytes: int
    remove: Callable[[], object]

    @property
    def asset(self) -> str:
        """Returns the asset of an expired partition; empty for another kind."""
        return self.path.partition("/")[0] if self.kind is Kind.EXPIRED else ""


def find_temporary(folders: Iterable[Path], cache: Path, before: float) -> Iterator[Leftover]:
    """Yields the temporary folders of ended processes in some folders and in the system's, and parts of fetched files.

    Args:
        before: only what has not changed since, in unix seconds.
    """
    for parent in {Path(tempfile.gettempdir()), *folders}:
        yield from _list_abandoned(parent, PREFIX, before)
    for path in sorted(cache.rglob("*.part")):
        with contextlib.suppress(FileNotFoundError):
            stat = path.stat()
            if stat.st_mtime < before:
                yield Leftover(Kind.TEMPORARY, str(path), stat.st_size, path.unlink)


def find_in_store(store: PartitionStore, before: float) -> Iterator[Leftover]:
    """Yields staged files and partition files below the root of a store."""
    stores = [store, *(open_experiment_store(store, name) for name in experiment_names(store))]
    for root in (*(one.root for one in stores), layout.serving_root(store.root)):
        yield from _find_staged(store, layout.staging_folder(root), before)
    for one in stores:
        for asset in (*one.assets(), layout.EXPERIMENTS):
            yield from _find_in_asset(one, asset, before)


def open_experiment_store(store: PartitionStore, name: str) -> PartitionStore:
    """Returns the store of an experiment's own partitions."""
    return PartitionStore(store.fs.unstrip_protocol(layout.experiment_root(store.root, name)), store.options)


def find_unlisted_shared(store: PartitionStore, asset: str, days: Sequence[str], before: float) -> Iterator[Leftover]:
    """Yields the shared files of an asset that the manifests of the given days, all that remain, do not list."""
    listed = {file.path for ds in days for file in store.manifest(asset, ds).files}
    for path, info in sorted(_files(store.fs, f"{layout.asset_folder(store.root, asset)}/{layout.SHARED}").items()):
        inside = f"{layout.SHARED}/{path.rpartition('/')[2]}"
        if inside not in listed and changed_at(info) < before:
            yield Leftover(Kind.EXPIRED, f"{asset}/{inside}", int(info["size"]), partial(store.fs.rm_file, path))


def find_bundles(bundles: BundleStore, before: float) -> Iterator[Leftover]:
    """Yields the bundles that the pointer does not list."""
    for folder in _folders(bundles.fs, layout.bundles_folder(bundles.root)):
        bundle_id = folder.rpartition("/")[2]
        with bundles.locked():
            pointer, files = bundles.pointer(), _files(bundles.fs, folder)
            is_listed = pointer is not None and bundle_id in pointer.stored
            if not is_listed and _all_before(files, before) and (files or bundles.is_local):
                yield Leftover(Kind.BUNDLE, folder, _size(files), partial(bundles.remove, bundle_id))


def _find_staged(store: PartitionStore, staging: str, before: float) -> Iterator[Leftover]:
    if store.is_local:
        yield from _list_abandoned(Path(staging), "", before)
        return
    for folder in _folders(store.fs, staging):
        files = _files(store.fs, folder)
        if files and _all_before(files, before):
            yield Leftover(Kind.TEMPORARY, folder, _size(files), partial(store.fs.rm, list(files)))


def _list_abandoned(parent: Path, prefix: str, before: float) -> Iterator[Leftover]:
    for path in find_abandoned(parent, prefix, before):
        size = sum(file.lstat().st_size for file in path.rglob("*") if file.is_file())
        yield Leftover(Kind.TEMPORARY, str(path), size, partial(shutil.rmtree, path, ignore_errors=True))


def _find_in_asset(store: PartitionStore, asset: str, before: float) -> Iterator[Leftover]:
    """Yields the files in the partition folders of an asset that no manifest needs."""
    folder = layout.asset_folder(store.root, asset)
    by_day: dict[str, dict[str, Any]] = defaultdict(dict)
    for path, info in _files(store.fs, folder).items():
        parent = path.rpartition("/")[0]
        if (ds := layout.ds_of_folder(parent)) is not None and parent.rpartition("/")[0] == folder:
            by_day[ds][path] = info
    # Manifests after the listing: a file that a newer manifest lists is younger than the listing, so it is not in it.
    manifests = store.find_days(asset, sorted(by_day))
    for ds, files in sorted(by_day.items()):
        if not _list_unneeded(files, manifests.get(ds), before):
            continue
        with contextlib.suppress(FileNotFoundError), store.locked(asset, ds):  # a folder may vanish
            manifest, now = manifests.get(ds), files
            if store.is_local:  # under the lock: a file may have been stored again
                manifest = store.find(asset, ds)
                now = _files(store.fs, layout.partition_folder(store.root, asset, ds))
            for path in _list_unneeded(now, manifest, before):
                yield Leftover(Kind.PARTITION, path, int(now[path]["size"]), partial(_remove_file, store.fs, path))


def _list_unneeded(files: Mapping[str, Any], manifest: Manifest | None, before: float) -> list[str]:
    needed = {layout.MANIFEST, LOCK}
    if manifest is not None:
        needed |= {file.path for file in manifest.files}
        needed |= {file.path for file in manifest.replaced if file.replaced_at >= before and not file.is_removed}
    return sorted(path for path, info in files.items() if path.rpartition("/")[2] not in needed and changed_at(info) < before)


def _remove_file(fs: Any, path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        fs.rm_file(path)


def _folders(fs: Any, folder: str) -> list[str]:
    try:
        fs.invalidate_cache(folder)
        entries = fs.ls(folder, detail=True)
    except FileNotFoundError:
        return []
    return sorted(str(entry["name"]).rstrip("/") for entry in entries if entry["type"] == "directory")


def _files(fs: Any, folder: str) -> dict[str, Any]:
    """Returns path -> information about every file below a folder."""
    fs.invalidate_cache(folder)
    listed = fs.find(folder, detail=True)
    return {str(path): info for path, info in listed.items() if info["type"] == "file"}  # s3fs lists an empty folder, too


def _all_before(files: Mapping[str, Any], before: float) -> bool:
    return all(changed_at(info) < before for info in files.values())


def _size(files: Mapping[str, Any]) -> int:
    return sum(int(info["size"]) for info in files.values())


def changed_at(info: Mapping[str, Any]) -> float:
    """Returns when a file was last changed, in unix seconds, as its filesystem tells it."""
    changed = info.get("mtime", info.get("LastModified", info.get("created")))
    return changed.timestamp() if isinstance(changed, dt.datetime) else float(changed)
