"""Atomic publishing of partitions, on a local folder or any object store.

Files are staged on local disk, named by their content, and put next to the files of the existing partition. Replacing one
small manifest then makes them visible. A run that fails or is killed before that last step leaves the existing partition
unchanged; one that is killed after it leaves the new partition whole.

Belongs here: bytes and manifests. Does not belong here: what is in the files (`tables.py`, `artifacts.py`).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dssm_assets.core.errors import Fault, PartitionMissingError, StorageError, WindowIncompleteError
from dssm_assets.storage import layout
from dssm_assets.storage.local_files import is_local, local_staging, write_atomic
from dssm_assets.storage.locations import location_errors, open_location
from dssm_assets.storage.manifest import Column, Manifest, StoredFile
from dssm_assets.storage.sized_files import SizedFileSystem


class PartitionStore:
    """Partitions below one root: a folder or an fsspec URL such as `s3://bucket/prefix`."""

    def __init__(self, root: str, options: Mapping[str, Any] | None = None) -> None:
        # A cached listing would hide what another process has written since.
        self.options = {"use_listings_cache": False, **(options or {})}
        self.fs, self.root = open_location(root, "key storage.root", self.options)
        self.is_local = is_local(self.fs)

    def staging(self) -> contextlib.AbstractContextManager[Path]:
        """Returns a context manager that yields an empty local folder to stage files in; it is removed afterwards."""
        return local_staging(self.root, is_root_local=self.is_local)

    @contextlib.contextmanager
    def staging_in_store(self) -> Iterator[str]:
        """Yields a folder inside the store in which several machines can stage files; it is removed afterwards.

        No manifest lists what a killed run leaves there: it may be deleted.
        """
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
        staged: Sequence[tuple[Path, int]],
        columns: Sequence[Column] = (),
        inputs: Mapping[str, str] | None = None,
        facts: Mapping[str, object] | None = None,
        is_shared: bool = False,
    ) -> Manifest:
        """Publishes staged files (path, rows) as a partition; returns its manifest.

        Files of the replaced partition are removed afterwards. Shared files are stored once for many days and are never
        removed.
        """
        files = [self.put_file(asset, ds, path, rows, is_shared=is_shared) for path, rows in staged]
        return self.publish_files(asset=asset, ds=ds, files=files, columns=columns, inputs=inputs, facts=facts)

    def publish_files(
        self,
        *,
        asset: str,
        ds: str,
        files: Sequence[StoredFile],
        columns: Sequence[Column] = (),
        inputs: Mapping[str, str] | None = None,
        facts: Mapping[str, object] | None = None,
    ) -> Manifest:
        """Publishes files that `put_file` or `copy_file` stored as a partition; returns its manifest."""
        return self._publish(Manifest(asset, ds, tuple(files), tuple(columns), dict(inputs or {}), dict(facts or {})))

    def publish_shared(self, manifest: Manifest, ds: str, inputs: Mapping[str, str] | None = None) -> Manifest:
        """Publishes the shared files of a partition for another day too; returns that day's manifest.

        Args:
            manifest: a partition whose files are shared.
            ds: the other day.
            inputs: what that day's partition was built from (default: the inputs of the given one).
        """
        return self._publish(replace(manifest, ds=ds, inputs=manifest.inputs if inputs is None else dict(inputs)))

    def _publish(self, manifest: Manifest) -> Manifest:
        asset, ds, files = manifest.asset, manifest.ds, manifest.files
        before = self.find(asset, ds)
        self._write_manifest(layout.manifest_path(self.root, asset, ds), manifest.to_json())
        if before is not None:
            kept = {file.path for file in files}
            superseded = [file for file in before.files if file.path not in kept and not layout.is_shared(file.path)]
            folder = layout.partition_folder(self.root, asset, ds)
            for file in superseded:
                with contextlib.suppress(FileNotFoundError):
                    self.fs.rm_file(f"{folder}/{file.path}")
        return manifest

    def find(self, asset: str, ds: str) -> Manifest | None:
        """Returns the manifest of a partition, None if there is none."""
        try:
            # start=0 because for a whole file s3fs first requests its size, and for a missing one a listing.
            with location_errors(self.root, "key storage.root", may_be_missing=True):
                text = self.fs.cat_file(layout.manifest_path(self.root, asset, ds), start=0)
        except FileNotFoundError:
            return None
        return Manifest.from_json(text)

    def manifest(self, asset: str, ds: str) -> Manifest:
        """Returns the manifest of a partition.

        Raises:
            PartitionMissingError: if it was never written.
        """
        found = self.find(asset, ds)
        if found is None:
            raise PartitionMissingError(_missing(asset, [ds]))
        return found

    def window(self, asset: str, days: Sequence[str]) -> list[Manifest]:
        """Returns the manifests of several days, in order.

        Raises:
            WindowIncompleteError: naming every missing day and the command that materializes them.
        """
        found = [self.find(asset, ds) for ds in days]
        missing = [ds for ds, manifest in zip(days, found, strict=True) if manifest is None]
        if missing:
            raise WindowIncompleteError(_missing(asset, missing))
        return [manifest for manifest in found if manifest is not None]

    def days(self, asset: str) -> list[str]:
        """Returns the days of an asset that have a visible partition, ascending."""
        folder = layout.asset_folder(self.root, asset)
        try:
            if not self.is_local:
                # One recursive listing costs less than a request for each day.
                visible = [path.rpartition("/")[0] for path in self.fs.find(folder) if path.endswith(f"/{layout.MANIFEST}")]
                return sorted(ds for ds in map(layout.ds_of_folder, visible) if ds)
            names = self.fs.ls(folder, detail=False)
        except FileNotFoundError:
            return []
        days = sorted(ds for ds in map(layout.ds_of_folder, names) if ds)
        return [ds for ds in days if self.fs.exists(layout.manifest_path(self.root, asset, ds))]

    def filesystem_for(self, manifests: Iterable[Manifest]) -> Any:
        """Returns the filesystem to read the files of some partitions with; a remote one knows their sizes in advance."""
        if self.is_local:
            return self.fs
        return SizedFileSystem(
            self.fs, {self.file_path(manifest, file): file.bytes for manifest in manifests for file in manifest.files}
        )

    def file_path(self, manifest: Manifest, file: StoredFile) -> str:
        """Returns the path of a file inside the store's filesystem."""
        return layout.file_path(self.root, manifest.asset, manifest.ds, file.path)

    def put_file(self, asset: str, ds: str, path: Path, rows: int, *, is_shared: bool = False) -> StoredFile:
        """Moves a staged file into the folder of a partition, whose manifest does not list it yet."""
        digest = file_sha256(path)
        stored = layout.content_name(path.name, digest)
        inside = f"{layout.SHARED}/{stored}" if is_shared else stored
        size = path.stat().st_size
        self.move_in(path, layout.file_path(self.root, asset, ds, inside))
        return StoredFile(path.name, inside, size, digest, rows)

    def copy_file(self, asset: str, manifest: Manifest, file: StoredFile) -> StoredFile:
        """Copies a partition's file into another asset's folder of the same day, whose manifest does not list it yet."""
        inside = layout.content_name(file.name, file.sha256)
        source, target = self.file_path(manifest, file), layout.file_path(self.root, asset, manifest.ds, inside)
        if not self.is_local:
            self.fs.cp_file(source, target)
            return replace(file, path=inside)
        with self.staging() as folder:
            shutil.copyfile(source, folder / file.name)
            self.move_in(folder / file.name, target)
        return replace(file, path=inside)

    def move_in(self, path: Path, target: str) -> None:
        """Moves a staged file to a path inside the store."""
        if not self.is_local:
            self.fs.put_file(str(path), target)
            return
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        with path.open("rb") as handle:
            os.fsync(handle.fileno())
        path.replace(target)

    def _write_manifest(self, path: str, text: str) -> None:
        if self.is_local:
            write_atomic(Path(path), [text.encode()])
        else:
            self.fs.pipe_file(path, text.encode())

    def verify(self, manifest: Manifest) -> None:
        """Checks every file of a partition against its digest.

        Raises:
            StorageError: naming the files that differ.
        """
        wrong = []
        for file in manifest.files:
            with self.fs.open(self.file_path(manifest, file), "rb") as handle:
                digest = hashlib.file_digest(handle, "sha256").hexdigest()
            if digest != file.sha256:
                wrong.append(file.name)
        if wrong:
            raise StorageError(
                f"partition {manifest.key}: files {wrong} differ from the manifest. To fix: materialize it again"
            )


def file_sha256(path: Path) -> str:
    """Returns the sha256 of a local file, in hex."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _missing(asset: str, days: Sequence[str]) -> Fault:
    shown = ", ".join(days[:10]) + (f" and {len(days) - 10} more" if len(days) > 10 else "")
    return Fault(
        f"table {asset}",
        "every day to be materialized",
        f"no partition for {shown}",
        f"dssm-assets materialize {asset} --from {days[0]} --to {days[-1]}",
    )


@dataclass(frozen=True)
class StoreAddress:
    """What is needed to open a store in another process; it can be pickled."""

    url: str
    options: Mapping[str, Any]

    @classmethod
    def from_store(cls, partitions: PartitionStore) -> StoreAddress:
        """Returns the address of an open store."""
        return cls(partitions.fs.unstrip_protocol(partitions.root), partitions.options)

    def open(self) -> PartitionStore:
        """Returns the store."""
        return PartitionStore(self.url, self.options)
