"""What killed runs leave behind, and files of partitions that were written again: found and removed after a grace period.

    temporary folders   <temporary folder>/dssm-*, <scratch>/dssm-*, <root>/_staging/*, <root>/serving/_staging/*
    partition files     in the folder of a partition, but not in its manifest, or replaced
    bundles             folders that current.json does not list: of a publisher that was killed
    uploads             parts of files whose upload to S3 was never completed

Only what has not changed during the grace period is removed. On a local disk a temporary folder also stays while the process
that made it lives, however old it is, and files are removed under the locks of their writers.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from dssm_assets.storage import layout
from dssm_assets.storage.bundles import BundleStore
from dssm_assets.storage.local_files import LOCK, folder_lock
from dssm_assets.storage.locations import has_conditional_puts
from dssm_assets.storage.manifest import Manifest
from dssm_assets.storage.partitions import PartitionStore
from dssm_assets.storage.scratch_folder import PREFIX, find_abandoned

_MANIFESTS_AT_ONCE: Final = 512
_NO_ASSETS: Final = (layout.STAGING, layout.SERVING)


class Kind(StrEnum):
    """A kind of leftover."""

    TEMPORARY = "temporary folders"
    PARTITION = "partition files"
    BUNDLE = "bundles"
    UPLOAD = "uploads"
    EXPIRED = "expired partitions"


@dataclass(frozen=True)
class Leftover:
    """Something that nobody needs: its kind, its path and its size in bytes (0 for an upload, whose size is not known)."""

    kind: Kind
    path: str
    bytes: int


def clean_temporary(folders: Iterable[Path], cache: Path, before: float, *, removes: bool) -> Iterator[Leftover]:
    """Yields, and removes, the temporary folders of ended processes in some folders and in the system's; parts of fetched files.

    Args:
        before: only those that have not changed since, in unix seconds.
        removes: False only finds them.
    """
    for parent in {Path(tempfile.gettempdir()), *folders}:
        yield from _clean_abandoned(parent, PREFIX, before, removes=removes)
    for path in sorted(cache.rglob("*.part")):
        with contextlib.suppress(FileNotFoundError):
            stat = path.stat()
            if stat.st_mtime < before:
                if removes:
                    path.unlink()
                yield Leftover(Kind.TEMPORARY, str(path), stat.st_size)


def clean_store(store: PartitionStore, before: float, *, removes: bool) -> Iterator[Leftover]:
    """Yields, and removes, staged files, partition files and uploads below the root of a store."""
    for root in (store.root.rstrip("/"), layout.serving_root(store.root), *_experiment_roots(store)):
        yield from _clean_staging(store, root, before, removes=removes)
    for root in (store.root.rstrip("/"), *_experiment_roots(store)):
        assets = [folder for folder in _folders(store.fs, root) if folder.rpartition("/")[2] not in _NO_ASSETS]
        for folder in assets:
            yield from _clean_asset(store, folder, before, removes=removes)
    if has_conditional_puts(store.fs):
        yield from _clean_uploads(store, before, removes=removes)


def manifest_changed_at(store: PartitionStore, asset: str, ds: str) -> float:
    """Returns when the manifest of a partition was written, in unix seconds."""
    return _changed_at(store.fs.info(layout.manifest_path(store.root, asset, ds)))


def unlisted_shared_files(
    store: PartitionStore, asset: str, days: Sequence[str], before: float, *, removes: bool
) -> Iterator[Leftover]:
    """Yields, and removes, the shared files of an asset that the manifests of the given days, all that remain, do not list."""
    listed = {file.path for ds in days for file in store.manifest(asset, ds).files}
    folder = layout.asset_folder(store.root, asset)
    for path, info in sorted(_files(store.fs, f"{folder}/{layout.SHARED}").items()):
        if f"{layout.SHARED}/{path.rpartition('/')[2]}" not in listed and _changed_at(info) < before:
            if removes:
                store.fs.rm_file(path)
            yield Leftover(Kind.EXPIRED, f"{asset}/{layout.SHARED}/{path.rpartition('/')[2]}", int(info["size"]))


def clean_bundles(bundles: BundleStore, before: float, *, removes: bool) -> Iterator[Leftover]:
    """Yields, and removes, the bundles that the pointer does not list."""
    for folder in _folders(bundles.fs, layout.bundles_folder(bundles.root)):
        bundle_id = folder.rpartition("/")[2]
        with bundles.locked():
            pointer = bundles.pointer()
            is_listed = pointer is not None and bundle_id in pointer.stored
            files = _files(bundles.fs, folder)
            if is_listed or not _all_before(files, before) or not (files or bundles.is_local):
                continue
            if removes:
                bundles.remove(bundle_id)
        yield Leftover(Kind.BUNDLE, folder, _size(files))


def _clean_staging(store: PartitionStore, root: str, before: float, *, removes: bool) -> Iterator[Leftover]:
    if store.is_local:
        yield from _clean_abandoned(Path(layout.staging_folder(root)), "", before, removes=removes)
        return
    for folder in _folders(store.fs, layout.staging_folder(root)):
        files = _files(store.fs, folder)
        if files and _all_before(files, before):
            if removes:
                store.fs.rm(list(files))
            yield Leftover(Kind.TEMPORARY, folder, _size(files))


def _clean_abandoned(parent: Path, prefix: str, before: float, *, removes: bool) -> Iterator[Leftover]:
    for path in find_abandoned(parent, prefix, before):
        size = sum(file.lstat().st_size for file in path.rglob("*") if file.is_file())
        if removes:
            shutil.rmtree(path, ignore_errors=True)
        yield Leftover(Kind.TEMPORARY, str(path), size)


def _clean_asset(store: PartitionStore, asset_folder: str, before: float, *, removes: bool) -> Iterator[Leftover]:
    """Yields, and removes, the files in the partition folders of an asset that no manifest needs."""
    if store.is_local:
        for partition in sorted(Path(asset_folder).glob("ds=*")):
            with contextlib.suppress(OSError), folder_lock(partition):  # a folder may vanish
                found = {str(path): _local_info(path) for path in partition.iterdir()}
                manifest = _read_manifest(store, str(partition))
                yield from _clean_partition(store, found, manifest, before, removes=removes)
        return
    by_folder: dict[str, dict[str, Any]] = defaultdict(dict)
    for path, info in _files(store.fs, asset_folder).items():
        folder = path.rpartition("/")[0]
        if layout.ds_of_folder(folder) is not None and folder.rpartition("/")[0] == asset_folder:
            by_folder[folder][path] = info
    # Manifests after the listing: a file that a newer manifest lists is younger than the listing, so it is not in it.
    suspects = {folder: files for folder, files in by_folder.items() if _may_have_leftovers(files, before)}
    manifests = _read_manifests(store, list(suspects))
    for folder, files in sorted(suspects.items()):
        yield from _clean_partition(store, files, manifests.get(folder), before, removes=removes)


def _may_have_leftovers(files: Mapping[str, Any], before: float) -> bool:
    """Returns whether a folder has more old files than a manifest alone."""
    return any(not path.endswith(f"/{layout.MANIFEST}") and _changed_at(info) < before for path, info in files.items())


def _clean_partition(
    store: PartitionStore, files: Mapping[str, Any], manifest: Manifest | None, before: float, *, removes: bool
) -> Iterator[Leftover]:
    needed = {layout.MANIFEST, LOCK}
    if manifest is not None:
        needed |= {file.path for file in manifest.files}
        needed |= {file.path for file in manifest.replaced if file.replaced_at >= before and not file.is_removed}
    for path, info in sorted(files.items()):
        if path.rpartition("/")[2] not in needed and _changed_at(info) < before and info["type"] == "file":
            if removes:
                with contextlib.suppress(FileNotFoundError):
                    store.fs.rm_file(path)
            yield Leftover(Kind.PARTITION, path, int(info["size"]))


def _read_manifest(store: PartitionStore, folder: str) -> Manifest | None:
    with contextlib.suppress(FileNotFoundError):
        return Manifest.from_json(store.fs.cat_file(f"{folder}/{layout.MANIFEST}"))
    return None


def _read_manifests(store: PartitionStore, folders: Sequence[str]) -> dict[str, Manifest]:
    """Returns folder -> manifest of those that have one, many requests at once."""
    found: dict[str, Manifest] = {}
    for first in range(0, len(folders), _MANIFESTS_AT_ONCE):
        paths = {f"{folder}/{layout.MANIFEST}": folder for folder in folders[first : first + _MANIFESTS_AT_ONCE]}
        for path, text in store.fs.cat(list(paths), on_error="return").items():
            if isinstance(text, FileNotFoundError):
                continue
            if isinstance(text, Exception):
                raise text
            found[paths[path]] = Manifest.from_json(text)
    return found


def _clean_uploads(store: PartitionStore, before: float, *, removes: bool) -> Iterator[Leftover]:
    bucket, _, prefix = store.root.strip("/").partition("/")
    try:
        answer = store.fs.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=f"{prefix}/" if prefix else "")
    except NotImplementedError:  # s3fs's error for a service that does not list uploads
        return
    for upload in answer.get("Uploads") or []:
        if upload["Initiated"].timestamp() < before:
            if removes:
                store.fs.call_s3("abort_multipart_upload", Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
            yield Leftover(Kind.UPLOAD, f"{bucket}/{upload['Key']}", 0)


def _experiment_roots(store: PartitionStore) -> list[str]:
    folders = _folders(store.fs, layout.experiments_folder(store.root))
    return [folder for folder in folders if layout.experiment_of_folder(folder) is not None]


def _folders(fs: Any, folder: str) -> list[str]:
    try:
        entries = fs.ls(folder, detail=True, **({"refresh": True} if has_conditional_puts(fs) else {}))
    except FileNotFoundError:
        return []
    return sorted(str(entry["name"]).rstrip("/") for entry in entries if entry["type"] == "directory")


def _files(fs: Any, folder: str) -> dict[str, Any]:
    """Returns path -> information about every file below a folder."""
    found = fs.find(folder, detail=True)
    return {str(path): info for path, info in found.items() if info["type"] == "file"}  # s3fs: an empty folder is found, too


def _all_before(files: Mapping[str, Any], before: float) -> bool:
    return all(_changed_at(info) < before for info in files.values())


def _size(files: Mapping[str, Any]) -> int:
    return sum(int(info["size"]) for info in files.values())


def _local_info(path: Path) -> dict[str, Any]:
    stat = path.lstat()
    return {"type": "file" if path.is_file() else "directory", "size": stat.st_size, "mtime": stat.st_mtime}


def _changed_at(info: Mapping[str, Any]) -> float:
    """Returns when a file was last changed, in unix seconds, as its filesystem tells it."""
    changed = info.get("mtime", info.get("LastModified", info.get("created")))
    return changed.timestamp() if isinstance(changed, dt.datetime) else float(changed)
