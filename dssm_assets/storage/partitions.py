"""Publishes partitions atomically, in a local folder or any object store.

Files are staged on local disk, named by their content, and stored next to the files of the existing partition. Replacing a
small manifest then makes them visible: a run killed before this step changes nothing.

If several runs write one partition at once, the last manifest remains, and nobody removes a file that it lists. On a local disk a
lock on the partition's folder covers storing, replacing and removing. An object store has no locks: each write has its own file
names, and the manifest is put only if it is unchanged since it was read.

After a power cut each partition is complete: files and manifests reach the disk before they get their names. Partitions of the
last seconds may be missing, because writing does not wait for the folders.

Replaced files stay for a grace period for their readers. The manifest lists them; the next write after the period, or the cleanup
of `extras/retention`, removes them.

Belongs here: bytes and manifests. Does not belong here: the content of files (`tables.py`, `artifacts.py`); files that no
manifest lists (`extras/retention/leftovers.py`).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from dssm_assets.core.days import LATEST, choose_day, is_date
from dssm_assets.core.errors import (
    DssmError,
    Fault,
    PartitionMissingError,
    PartitionReplacedError,
    StorageError,
    WindowIncompleteError,
    remedy_of_missing,
)
from dssm_assets.storage import layout
from dssm_assets.storage.hidden_list import HiddenList
from dssm_assets.storage.local_files import ScratchFolder, folder_lock, is_local, local_staging
from dssm_assets.storage.locations import absent_condition, location_errors, open_location, put_if, unchanged_condition
from dssm_assets.storage.manifest import Column, Erasure, Manifest, ReplacedFile, StoredFile
from dssm_assets.storage.sized_files import SizedFileSystem

GRACE_SECONDS: Final = 24 * 3600.0
_RECORD_SECONDS: Final = 3600.0
"""A manifest lists replaced files at least for so long, also after their removal."""
_MAX_REPLACED: Final = 300
"""A manifest lists at most so many replaced files. If there are more, `leftovers.py` removes the oldest."""
_TRIES: Final = 100
"""Most attempts to put a manifest while others replace it."""
_LOOKS: Final = 5
_REQUESTS: Final = 32
"""So many manifests are requested at once from an object store."""
_WAIT_SECONDS: Final = 0.02
"""Longest wait before the second try. Later tries may wait up to 32 times as long."""


class PartitionStore:
    """Partitions below one root: a folder or an fsspec URL such as `s3://bucket/prefix`."""

    def __init__(
        self,
        root: str,
        options: Mapping[str, Any] | None = None,
        grace_seconds: float = GRACE_SECONDS,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """Opens a store, which need not exist yet.

        Args:
            grace_seconds: replaced files stay for so long; must exceed the longest time that a run reads a partition.
            settings: asset -> digest of its settings, recorded in the manifests.
        """
        self.grace_seconds = grace_seconds
        self.settings = settings or {}
        self.leaves_files = False
        """If true, `leftovers.py` removes files that are no longer needed, because others may list them."""
        # A cached listing would hide files that another process has written since.
        self.options = {"use_listings_cache": False, **(options or {})}
        self.fs, self.root = open_location(root, "key storage.root", self.options)
        self.is_local = is_local(self.fs)
        self.hidden = HiddenList(self.fs, layout.serving_root(self.root))

    def staging(self) -> ScratchFolder:
        """Returns an empty local folder to stage files in."""
        return local_staging(self.root, is_root_local=self.is_local)

    @contextlib.contextmanager
    def staging_in_store(self) -> Iterator[str]:
        """Yields a folder inside the store where several machines can stage files. Removes it afterwards."""
        if self.is_local:
            with self.staging() as path:
                yield str(path)
            return
        folder = f"{layout.staging_folder(self.root)}/{uuid.uuid4().hex}"
        try:
            yield folder
        finally:
            with contextlib.suppress(FileNotFoundError):
                self.fs.rm(folder, recursive=True)

    def publish(
        self,
        *,
        asset: str,
        ds: str,
        staged: Sequence[tuple[Path, int] | StoredFile],
        columns: Sequence[Column] = (),
        inputs: Mapping[str, str] | None = None,
        facts: Mapping[str, object] | None = None,
        is_shared: bool = False,
    ) -> Manifest:
        """Publishes files as a partition: staged files (path, rows), or files stored by `put_file`. Returns the manifest.

        Files of the replaced partition are removed after the grace period. Shared files are stored once for many days;
        `leftovers.py` removes them when no day lists them any more.
        """
        with self.locked(asset, ds):
            stored = tuple(file for file in staged if isinstance(file, StoredFile))
            self._refuse_forgotten(Manifest(asset, ds, stored, tuple(columns)))
            # Under the lock nobody can remove the files before the manifest lists them.
            files = self._put_all(asset, ds, staged, is_shared=is_shared)
            return self._publish(Manifest(asset, ds, files, tuple(columns), dict(inputs or {}), dict(facts or {})))

    def publish_shared(self, manifest: Manifest, ds: str, inputs: Mapping[str, str] | None = None) -> Manifest:
        """Publishes the shared files of a partition for another day, too. Returns the manifest of this day.

        Args:
            inputs: inputs of this day's partition (default: the inputs in `manifest`).
        """
        built_from = manifest.inputs if inputs is None else dict(inputs)
        with self.locked(manifest.asset, ds):
            return self._publish(replace(manifest, ds=ds, inputs=built_from, replaced=(), erasures=()))

    def _refuse_forgotten(self, manifest: Manifest) -> None:
        """Raises a PartitionReplacedError if users were forgotten since their rows were read.

        First removes the manifest's stored files, without files of the existing partition.
        """
        if manifest.user_column is None:
            return
        try:
            self.hidden.check_unchanged(f"partition {manifest.key}")
        except PartitionReplacedError:
            before = self.find(manifest.asset, manifest.ds)
            listed = set[str]() if before is None else {file.path for file in before.files}
            self._remove_files(manifest.asset, manifest.ds, {file.path for file in manifest.files} - listed)
            raise

    def rewrite(self, before: Manifest, files: Sequence[tuple[Path, int] | StoredFile], erasure: Erasure) -> Manifest:
        """Replaces a partition's files because users were forgotten.

        The former files are removed at once, even while they are read. Shared files stay, because other days list them.

        Args:
            files: staged files (path, rows), and the files of the partition to keep.

        Raises:
            PartitionReplacedError: another run has replaced the partition meanwhile.
        """
        asset, ds = before.asset, before.ds
        with self.locked(asset, ds):
            found, condition = self._find_unchanged(asset, ds)
            if found is None or found != before:
                raise PartitionReplacedError(_replaced(before, "all"))
            stored = self._put_all(asset, ds, files, is_shared=any(layout.is_shared(file.path) for file in before.files))
            after = replace(found, files=stored, replaced=(), erasures=(*found.erasures, erasure))
            if not put_if(self.fs, layout.manifest_path(self.root, asset, ds), after.to_json().encode(), condition):
                raise PartitionReplacedError(_replaced(before, "all"))
            self._remove_files(asset, ds, _all_paths(found) - {file.path for file in stored})
        return after

    def _remove_files(self, asset: str, ds: str, paths: Iterable[str]) -> None:
        """Removes files of a partition, except shared files, because other days may list these."""
        for path in paths:
            if not layout.is_shared(path):
                with contextlib.suppress(FileNotFoundError):
                    self.fs.rm_file(layout.file_path(self.root, asset, ds, path))

    def _publish(self, manifest: Manifest) -> Manifest:
        """Replaces the manifest of a locked partition. Returns the new manifest."""
        path = layout.manifest_path(self.root, manifest.asset, manifest.ds)
        manifest = replace(manifest, settings=self.settings.get(manifest.asset, ""))
        for attempt in range(_TRIES):
            before, condition = self._find_unchanged(manifest.asset, manifest.ds)
            if attempt and before is not None and _was_put(manifest, before):
                return manifest
            self._refuse_forgotten(manifest)  # again, because uploads take time
            kept, outdated = self._replaced_files(manifest, before)
            after = replace(manifest, replaced=kept)
            if not put_if(self.fs, path, after.to_json().encode(), condition):
                time.sleep(random.uniform(0.0, _WAIT_SECONDS * 2 ** min(attempt, 5)))
                continue
            if not self.leaves_files:
                self.remove_replaced(manifest.asset, manifest.ds, outdated)
            return after
        raise StorageError(
            f"partition {manifest.key}: other runs replaced it {_TRIES} times meanwhile. To fix: materialize it again, one run at a time"
        )

    def remove(self, asset: str, ds: str, is_old: Callable[[Manifest], bool] = lambda _: True) -> bool:
        """Removes a partition if `is_old` holds, which is asked under the lock. Returns whether it was removed.

        The manifest is removed first. Shared files stay. A partition that another run has published meanwhile stays as well.
        """
        with self.locked(asset, ds):
            manifest = self.find(asset, ds)
            if manifest is None or not is_old(manifest):
                return False
            self.fs.rm_file(layout.manifest_path(self.root, asset, ds))
            if not self.leaves_files:
                self._remove_files(asset, ds, _all_paths(manifest))
            return True

    def remove_replaced(self, asset: str, ds: str, files: Sequence[ReplacedFile]) -> None:
        """Removes replaced files from a locked partition. On a local disk, a file that a run has stored again meanwhile stays."""
        folder = layout.partition_folder(self.root, asset, ds)
        for file in files:
            path = f"{folder}/{file.path}"
            with contextlib.suppress(OSError):  # the partition is published; a file that remains is a leftover
                if not self.is_local or Path(path).stat().st_mtime <= file.replaced_at:
                    self.fs.rm_file(path)

    def _find_unchanged(self, asset: str, ds: str) -> tuple[Manifest | None, dict[str, str]]:
        """Returns the manifest of a partition, and the condition for a put that it is unchanged."""
        before = self.find(asset, ds)
        if before is None:  # most writes make a new partition and need only this request
            return None, absent_condition(self.fs)
        condition = unchanged_condition(self.fs, layout.manifest_path(self.root, asset, ds))
        return (self.find(asset, ds) if condition else before), condition

    def _replaced_files(
        self, manifest: Manifest, before: Manifest | None
    ) -> tuple[tuple[ReplacedFile, ...], tuple[ReplacedFile, ...]]:
        """Returns the replaced files that a new manifest lists, and the replaced files to remove."""
        if before is None:
            return (), ()
        now, listed = time.time(), {file.path for file in manifest.files}
        just = [ReplacedFile(file.path, now) for file in before.files]
        replaced = [file for file in (*before.replaced, *just) if file.path not in listed]
        limit, forgotten = now - self.grace_seconds, now - max(self.grace_seconds, _RECORD_SECONDS)
        outdated = tuple(
            file for file in replaced if file.replaced_at <= limit and not (file.is_removed or layout.is_shared(file.path))
        )
        kept = [replace(file, is_removed=file.replaced_at <= limit) for file in replaced if file.replaced_at > forgotten]
        return tuple(kept[-_MAX_REPLACED:]), outdated

    def locked(self, asset: str, ds: str) -> contextlib.AbstractContextManager[None]:
        """Keeps other writers out of a partition of a local store."""
        return folder_lock(layout.partition_folder(self.root, asset, ds)) if self.is_local else contextlib.nullcontext()

    def find(self, asset: str, ds: str) -> Manifest | None:
        """Returns the manifest of a partition, None if there is no partition."""
        path = layout.manifest_path(self.root, asset, ds)
        self.hidden.note_once()
        try:
            with location_errors(self.root, "key storage.root", may_be_missing=True):
                # start=0, because otherwise s3fs first requests the file's size, or for a missing file a listing.
                text = Path(path).read_bytes() if self.is_local else self.fs.cat_file(path, start=0)
        except FileNotFoundError:
            return None
        return Manifest.from_json(text)

    def find_days(self, asset: str, days: Sequence[str]) -> dict[str, Manifest]:
        """Returns day -> manifest for the stored days among `days`. Reads many at once from an object store."""
        with ThreadPoolExecutor(1 if self.is_local else _REQUESTS) as pool:
            found = zip(days, pool.map(partial(self.find, asset), days), strict=True)
            return {ds: manifest for ds, manifest in found if manifest is not None}

    def need(self, asset: str, ds: str) -> Manifest:
        """Returns the manifest of a partition.

        Raises:
            PartitionMissingError: the partition was never written.
        """
        found = self.find(asset, ds)
        if found is None:
            raise PartitionMissingError(_missing(asset, [ds]))
        return found

    def need_all(self, asset: str, days: Sequence[str]) -> list[Manifest]:
        """Returns the manifests of several days, in order.

        Raises:
            WindowIncompleteError: days are missing. The error names them and the command that materializes them.
        """
        found = self.find_days(asset, days)
        if missing := [ds for ds in days if ds not in found]:
            raise WindowIncompleteError(_missing(asset, missing))
        return [found[ds] for ds in days]

    def assets(self) -> list[str]:
        """Returns the names of the folders that may hold partitions, sorted."""
        try:
            entries = self.fs.ls(self.root, detail=True)
        except FileNotFoundError:
            return []
        names = (str(entry["name"]).rstrip("/").rpartition("/")[2] for entry in entries if entry["type"] == "directory")
        return sorted(name for name in names if name not in layout.NO_ASSETS)

    def days(self, asset: str) -> list[str]:
        """Returns the days with a visible partition of an asset, ascending."""
        folder = layout.asset_folder(self.root, asset)
        try:
            # One recursive listing of an object store costs less than a request for each day.
            paths = map(str, Path(folder).glob(f"ds=*/{layout.MANIFEST}")) if self.is_local else self.fs.find(folder)
        except FileNotFoundError:  # no bucket yet
            return []
        visible = [layout.ds_of_folder(path.rpartition("/")[0]) for path in paths if path.endswith(f"/{layout.MANIFEST}")]
        return sorted(filter(None, visible))

    def choose_day(self, asset: str, day: str = LATEST) -> str:
        """Resolves the text of a day among an asset's stored days. A date stays as it is.

        Args:
            day: a text in the form of `core/days.read_day`.

        Raises:
            PartitionMissingError: no day is stored, or this day is not.
        """
        if is_date(day):
            return day
        stored = self.days(asset)
        if not stored:
            remedy = f"correct the name, or {remedy_of_missing(asset, 'DAY')}"
            raise PartitionMissingError(Fault(f"table {asset} in {self.root}", "a stored day", "none", remedy))
        return choose_day(day, stored, f"table {asset}", "a stored day")

    def filesystem_for(self, manifests: Iterable[Manifest]) -> Any:
        """Returns a filesystem to read partitions' files with. For a remote store it knows the files' sizes, which saves requests."""
        if self.is_local:
            return self.fs
        return SizedFileSystem(
            self.fs, {self.file_path(manifest, file): file.bytes for manifest in manifests for file in manifest.files}
        )

    def file_path(self, manifest: Manifest, file: StoredFile) -> str:
        return layout.file_path(self.root, manifest.asset, manifest.ds, file.path)

    @contextlib.contextmanager
    def reading(self, manifests: Iterable[Manifest]) -> Iterator[None]:
        """Explains errors inside a block that reads partitions' files.

        Raises:
            PartitionReplacedError: files were removed because another run has written the partition meanwhile.
            StorageError: files of an existing partition are missing.
        """
        given = list(manifests)
        try:
            yield
        except DssmError:
            raise
        except Exception as error:
            faults = [fault for manifest in given if (fault := self._missing_files(manifest)) is not None]
            says_missing = (
                isinstance(error, FileNotFoundError) or "No files found" in str(error) or "No such file" in str(error)
            )
            if faults or says_missing:  # without faults, it was written again between the error and this check
                raise PartitionReplacedError(faults or [_replaced(manifest, "some") for manifest in given]) from error
            raise

    def _missing_files(self, manifest: Manifest) -> Fault | None:
        """Returns the fault of a partition that was rewritten or removed while it was read. None if all its files exist.

        Raises:
            StorageError: files are missing, and the manifest still lists them.
        """
        for _ in range(_LOOKS):  # between two looks, the same content may be published again
            missing = [file.name for file in manifest.files if not self.fs.exists(self.file_path(manifest, file))]
            if not missing:
                return None
            now = self.find(manifest.asset, manifest.ds)
            if now is None or now.files != manifest.files:
                return _replaced(manifest, ", ".join(missing))
        raise StorageError(f"partition {manifest.key}: files {missing} are missing. To fix: materialize it again")

    def put_file(self, asset: str, ds: str, path: Path, rows: int, *, is_shared: bool = False) -> StoredFile:
        """Stores a staged file in a partition's folder. No manifest lists it yet."""
        with self.locked(asset, ds):
            if self.is_local:
                os.utime(path)  # newer than a replaced file with the same content and name
            return self._put(asset, ds, path, rows, is_shared=is_shared)

    def _put_all(
        self, asset: str, ds: str, staged: Iterable[tuple[Path, int] | StoredFile], *, is_shared: bool
    ) -> tuple[StoredFile, ...]:
        return tuple(
            file if isinstance(file, StoredFile) else self._put(asset, ds, *file, is_shared=is_shared) for file in staged
        )

    def _put(self, asset: str, ds: str, file: Path, rows: int, *, is_shared: bool) -> StoredFile:
        """Moves a file into a partition's folder. Its name is unique per write; shared files and local files are named by content alone."""
        digest, size = file_sha256(file), file.stat().st_size
        name = layout.content_name(file.name, digest, "" if is_shared or self.is_local else uuid.uuid4().hex[:12])
        inside = f"{layout.SHARED}/{name}" if is_shared else name
        target = layout.file_path(self.root, asset, ds, inside)
        if not self.is_local:
            self.fs.put_file(str(file), target)
        else:
            Path(target).parent.mkdir(parents=True, exist_ok=True)
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
            file.replace(target)
        return StoredFile(file.name, inside, size, digest, rows)


def _all_paths(manifest: Manifest) -> set[str]:
    return {file.path for file in manifest.files} | {file.path for file in manifest.replaced}


def _replaced(manifest: Manifest, names: str) -> Fault:
    remedy = "read it again; if reading takes longer than storage.grace_hours, raise this value"
    got = f"a partition that was written again meanwhile, its former files removed ({names})"
    return Fault(f"partition {manifest.key}", "its files", got, remedy)


def _was_put(manifest: Manifest, now: Manifest) -> bool:
    """Returns whether an earlier try of a put succeeded although its answer was lost, so that the put's condition failed now.

    Then the manifest is the current one, or it was replaced since; the current one then lists its files, with their unique names.
    """
    own = {file.path for file in manifest.files if not layout.is_shared(file.path)}
    return now == manifest or any(file.path in own for file in now.replaced)


def file_sha256(path: Path) -> str:
    """Returns the sha256 of a local file, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _missing(asset: str, days: Sequence[str]) -> Fault:
    shown = ", ".join(days[:10]) + (f" and {len(days) - 10} more" if len(days) > 10 else "")
    return Fault(
        f"table {asset}",
        "every day to be materialized",
        f"no partition for {shown}",
        remedy_of_missing(asset, days[0], days[-1]),
    )
