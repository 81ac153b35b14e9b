"""Finds and removes files that nobody needs: expired partitions, leftovers of killed runs, replaced files.

    expired partitions  older than their group's `storage.keep_days`
    temporary folders   our folders in the system's temporary folder and in scratch, <root>/_staging/*, <root>/serving/_staging/*
    partition files     files in a partition's folder that its manifest does not list, or lists as replaced; shared files no day lists
    bundles             folders that current.json does not list, left by a killed publisher

Only files unchanged during the grace period are listed, because a run may still read its own or replaced files. On a local
disk a temporary folder stays as long as its process lives. Remove each leftover before you ask for the next one: until then a
lock keeps writers out. Parts of unfinished uploads to S3 need a lifecycle rule of the bucket (AbortIncompleteMultipartUpload).

Age counts back from the latest stored day, not from today. A few days with wrong dates do not count (`find_first_kept`). Some
partitions stay however old they are: logs whose histories span all days (`AssetRow.is_log`), inputs of a stored serving
bundle or of an experiment, and files that other extras still need (`Extra.cleaned`). Other partitions may be removed while
partitions made from them stay readable. `materialize --with-upstream` makes removed partitions again.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any, Final

from dssm_assets.core.errors import PartitionMissingError
from dssm_assets.defs.asset_table import expiring_groups
from dssm_assets.defs.scene import today_in
from dssm_assets.installed_extras import load_all
from dssm_assets.service.bundle.bundle_store import BundleStore, open_bundles
from dssm_assets.steps.workspace import Workspace, day_before
from dssm_assets.storage import layout
from dssm_assets.storage.local_files import LOCK, find_abandoned, find_own_folder
from dssm_assets.storage.manifest import Manifest
from dssm_assets.storage.overlay import experiment_names
from dssm_assets.storage.partitions import PartitionStore

_DAILY = "behavior"
"""Its days and the days of the expiring assets give the store's latest day."""
_DUE_SECONDS: Final = 24 * 3600.0


class Kind(StrEnum):
    TEMPORARY = "temporary folders"
    PARTITION = "partition files"
    BUNDLE = "bundles"
    EXPIRED = "expired partitions"


@dataclass(frozen=True)
class Leftover:
    """A file, folder or partition to remove: its kind, path, size in bytes, and a function that removes it.

    The function returns False, and removes nothing, if the leftover is needed again.
    """

    kind: Kind
    path: str
    bytes: int
    remove: Callable[[], object]

    @property
    def asset(self) -> str:
        """Returns the asset of an expired partition, "" for a leftover of another kind."""
        return self.path.partition("/")[0] if self.kind is Kind.EXPIRED else ""


def clean(workspace: Workspace, grace_hours: float | None = None, *, removes: bool = True) -> Iterator[Leftover]:
    """Removes and yields a scene's expired partitions and leftovers, and temporary folders of ended processes."""
    hours = workspace.config.storage.grace_hours if grace_hours is None else grace_hours
    for leftover in _find(workspace, time.time() - hours * 3600, removes=removes):
        if not removes or leftover.remove() is not False:
            yield leftover


def _find(workspace: Workspace, before: float, *, removes: bool) -> Iterator[Leftover]:
    loaded, store, expired = workspace.loaded, workspace.tables.partitions, set[str]()
    for leftover in find_expired(workspace, before):
        yield leftover
        if not removes:  # otherwise its manifest is gone or new
            expired.add(leftover.path)
    kept, faults = clean_extras(workspace, before, removes=removes)
    for fault in faults:
        workspace.log(f"not cleaned: {fault}")
    yield from find_temporary([loaded.scratch], workspace.artifacts.cache, before)
    if not (faults and store.leaves_files):  # a failed extra has not told its files
        yield from find_in_store(store, before, kept, expired)
    yield from find_bundles(open_bundles(loaded), before)


def clean_extras(workspace: Workspace, before: float, *, removes: bool = True) -> tuple[frozenset[str], list[str]]:
    """Lets the extras remove their data that nobody has needed since a unix time.

    Returns the paths of files that extras still need, and the errors of extras that failed.
    """
    kept, faults = set[str](), list[str]()
    for extra in load_all("cleaned"):
        try:
            kept |= extra.on_cleaned(workspace, before, removes=removes)
        except Exception as error:  # an optional neighbour of the store may raise anything
            faults.append(f"{type(error).__name__}: {error}")
    return frozenset(kept), faults


def clean_when_due(workspace: Workspace) -> None:
    """Cleans the store if the last cleaning was over 24 hours ago. Never raises: the run goes on without a cleaning."""
    store = workspace.tables.partitions
    path = layout.inside(store.root, layout.CLEANED)
    try:
        if store.fs.exists(path) and abs(time.time() - store.fs.modified(path).timestamp()) < _DUE_SECONDS:
            return
        store.fs.makedirs(store.root, exist_ok=True)
        store.fs.pipe_file(path, b"")
        if sizes := [leftover.bytes for leftover in clean(workspace)]:
            workspace.log(f"removed leftovers: {len(sizes)}, {sum(sizes) / (1 << 20):.1f} MiB")
    except Exception as error:
        workspace.log(f"leftovers were not removed: {type(error).__name__}: {error}")


def find_expired(workspace: Workspace, before: float) -> Iterator[Leftover]:
    """Yields partitions older than `storage.keep_days` and unchanged since a unix time. Their removal checks both again."""
    groups, keep_days, store = expiring_groups(), workspace.config.storage.keep_days, workspace.tables.partitions
    stored = {asset: store.days(asset) for asset, group in groups.items() if group in keep_days}
    if not any(stored.values()):
        return
    today = today_in(workspace.config.calendar.timezone).isoformat()
    every = sorted({ds for days in (*stored.values(), store.days(_DAILY)) for ds in days if ds <= today}, reverse=True)
    needed = _find_needed(workspace, store)
    for asset, days in stored.items():
        first = find_first_kept(every, keep_days[groups[asset]])
        for manifest in store.find_days(asset, [ds for ds in days if ds < first and f"{asset}/{ds}" not in needed]).values():
            is_old = partial(_is_old, store, before, manifest)
            if is_old(manifest):
                size = sum(file.bytes for file in manifest.files if not layout.is_shared(file.path))
                yield Leftover(Kind.EXPIRED, manifest.key, size, partial(store.remove, asset, manifest.ds, is_old))


def find_first_kept(days: Sequence[str], keep: int) -> str:
    """Returns the oldest day to keep, so that `keep` days remain up to the latest. "": no day is certain to be the latest.

    `days` descend. A day counts as the latest only if more than half (at least two) of the `keep` days up to it are stored.
    Otherwise a few days from events with wrong dates would make all other days look old.
    """
    span = max(keep, 2)
    for latest, middle in zip(days, days[span // 2 :], strict=False):
        if middle > day_before(latest, span):
            return day_before(latest, keep - 1)
    return ""


def _is_old(store: PartitionStore, before: float, seen: Manifest, now: Manifest) -> bool:
    path = layout.manifest_path(store.root, now.asset, now.ds)
    with contextlib.suppress(FileNotFoundError):
        return now.to_json() == seen.to_json() and bool(store.fs.modified(path).timestamp() < before)
    return False


def _find_needed(workspace: Workspace, store: PartitionStore) -> set[str]:
    bundles = open_bundles(workspace.loaded)
    pointer = bundles.pointer()
    needed: set[str] = set()
    for bundle_id in () if pointer is None else pointer.stored:
        with contextlib.suppress(PartitionMissingError):  # removed by hand, or by a publisher that was killed
            needed |= set(bundles.manifest(bundle_id)["inputs"])
    for own in open_experiments(store).values():
        for asset in own.assets():
            for manifest in own.find_days(asset, own.days(asset)).values():
                needed |= set(manifest.inputs)
    return needed


def find_temporary(folders: Iterable[Path], cache: Path, before: float) -> Iterator[Leftover]:
    """Yields temporary folders of ended processes (in some folders and in the system's), and partly downloaded files."""
    for parent in {path.resolve() for path in (Path(tempfile.gettempdir()), *folders)}:
        if (own := find_own_folder(parent)) is not None:
            yield from _list_abandoned(own, before)
    for path in sorted(cache.rglob("*.part")):
        with contextlib.suppress(FileNotFoundError):
            stat = path.stat()
            if stat.st_mtime < before:
                yield Leftover(Kind.TEMPORARY, str(path), stat.st_size, partial(path.unlink, missing_ok=True))


def find_in_store(
    store: PartitionStore, before: float, kept: Collection[str] = (), expired: Collection[str] = ()
) -> Iterator[Leftover]:
    """Yields a store's staged files and unneeded partition files, without the `kept` paths and the `expired` partitions."""
    stores = [store, *open_experiments(store).values()]
    for root in (*(one.root for one in stores), layout.serving_root(store.root)):
        yield from _find_staged(store, layout.staging_folder(root), before)
    for one in stores:
        for asset in (*one.assets(), layout.EXPERIMENTS):
            yield from find_in_asset(one, asset, before, kept, expired if one is store else ())


def open_experiments(store: PartitionStore) -> dict[str, PartitionStore]:
    """Returns "<experiment>/" -> the store with that experiment's own partitions."""
    roots = {name: store.fs.unstrip_protocol(layout.experiment_root(store.root, name)) for name in experiment_names(store)}
    return {f"{name}/": PartitionStore(root, store.options) for name, root in roots.items()}


def find_bundles(bundles: BundleStore, before: float) -> Iterator[Leftover]:
    """Yields bundles that the pointer does not list."""
    for folder in _list_folders(bundles.fs, layout.bundles_folder(bundles.root)):
        bundle_id = folder.rpartition("/")[2]
        with bundles.locked():
            pointer, files = bundles.pointer(), _files(bundles.fs, folder)
            if (pointer is None or bundle_id not in pointer.stored) and (files or bundles.is_local):
                yield from _list_if_old(Kind.BUNDLE, folder, files, before, partial(bundles.remove, bundle_id))


def _find_staged(store: PartitionStore, staging: str, before: float) -> Iterator[Leftover]:
    if store.is_local:
        yield from _list_abandoned(Path(staging), before)
        return
    for folder in _list_folders(store.fs, staging):
        if files := _files(store.fs, folder):
            yield from _list_if_old(Kind.TEMPORARY, folder, files, before, partial(store.fs.rm, list(files)))


def _list_if_old(
    kind: Kind, folder: str, files: Mapping[str, Any], before: float, remove: Callable[[], object]
) -> Iterator[Leftover]:
    if all(_changed_at(info) < before for info in files.values()):
        yield Leftover(kind, folder, sum(int(info["size"]) for info in files.values()), remove)


def _list_abandoned(parent: Path, before: float) -> Iterator[Leftover]:
    for path in find_abandoned(parent, before):
        with contextlib.suppress(FileNotFoundError):  # another cleanup removes it
            size = sum(file.lstat().st_size for file in path.rglob("*") if file.is_file())
            yield Leftover(Kind.TEMPORARY, str(path), size, partial(shutil.rmtree, path, ignore_errors=True))


def find_in_asset(
    store: PartitionStore, asset: str, before: float, kept: Collection[str], expired: Collection[str] = ()
) -> Iterator[Leftover]:
    """Yields the files in an asset's folders that no manifest needs."""
    folder = layout.asset_folder(store.root, asset)
    by_day: dict[str, dict[str, Any]] = defaultdict(dict)
    shared: dict[str, Any] = {}
    for path, info in _files(store.fs, folder).items():
        parent = path.rpartition("/")[0]
        if parent == f"{folder}/{layout.SHARED}":
            shared[path] = info
        elif (ds := layout.ds_of_folder(parent)) is not None and parent.rpartition("/")[0] == folder:
            by_day[ds][path] = info
    # Manifests are read after the listing, so that every listed file is judged by the newest manifest.
    manifests = store.find_days(asset, sorted(by_day))
    for ds, files in sorted(by_day.items()):
        # An expiring partition takes its replaced files with it.
        since = float("-inf") if f"{asset}/{ds}" in expired else before
        if not _list_unneeded(files, [manifests.get(ds)], before, since):
            continue
        with contextlib.suppress(FileNotFoundError), store.locked(asset, ds):  # a folder may vanish
            manifest, now = manifests.get(ds), files
            if store.is_local:  # listed again under the lock: a file may have been stored again
                manifest = store.find(asset, ds)
                now = _files(store.fs, layout.partition_folder(store.root, asset, ds))
            for path in _list_unneeded(now, [manifest], before, since):
                if path not in kept:
                    yield _describe_file(store.fs, path, now[path], before)
    if shared:  # a day published meanwhile may list the shared files
        listing = [day for day in store.find_days(asset, store.days(asset)).values() if day.key not in expired]
        for path in _list_unneeded(shared, listing, before, before):
            yield _describe_file(store.fs, path, shared[path], before)


def _list_unneeded(files: Mapping[str, Any], manifests: Iterable[Manifest | None], before: float, since: float) -> list[str]:
    """Returns the files older than `before`, if no manifest lists them, or lists them as replaced before `since`."""
    needed = {layout.MANIFEST, LOCK}
    for manifest in filter(None, manifests):
        listed = {file.path for file in manifest.files}
        listed |= {file.path for file in manifest.replaced if file.replaced_at >= since and not file.is_removed}
        needed |= {path.rpartition("/")[2] for path in listed}
    return sorted(path for path, info in files.items() if path.rpartition("/")[2] not in needed and _changed_at(info) < before)


def _describe_file(fs: Any, path: str, info: Mapping[str, Any], before: float) -> Leftover:
    return Leftover(Kind.PARTITION, path, int(info["size"]), partial(_remove_file, fs, path, before))


def _remove_file(fs: Any, path: str, before: float) -> bool:
    """Removes a file, unless it was stored again after a unix time. Returns whether it was removed."""
    with contextlib.suppress(FileNotFoundError):
        if fs.modified(path).timestamp() < before:
            fs.rm_file(path)
            return True
    return False


def _list_folders(fs: Any, folder: str) -> list[str]:
    try:
        fs.invalidate_cache(folder)
        entries = fs.ls(folder, detail=True)
    except FileNotFoundError:
        return []
    return sorted(str(entry["name"]).rstrip("/") for entry in entries if entry["type"] == "directory")


def _files(fs: Any, folder: str) -> dict[str, Any]:
    fs.invalidate_cache(folder)
    listed = fs.find(folder, detail=True)
    return {str(path): info for path, info in listed.items() if info["type"] == "file"}  # s3fs also lists an empty folder


def _changed_at(info: Mapping[str, Any]) -> float:
    """Returns when a file was last changed, in unix seconds by the clock of its filesystem."""
    changed = info.get("mtime", info.get("LastModified", info.get("created")))
    return changed.timestamp() if isinstance(changed, dt.datetime) else float(changed)
