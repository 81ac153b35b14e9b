"""Atomic publishing of a partition's files, on a local folder or any object store.

Files are written aside on local disk, given names that carry their content, placed beside the standing ones, and made
visible by replacing one small manifest. A run that fails or is killed before that last step leaves the previous
partition as it was; one that is killed after it leaves the new partition whole.

Belongs here: bytes and manifests. Does not belong here: what is in the files (`table_store.py`, `artifact_store.py`).
"""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import io
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import fsspec
from fsspec import AbstractFileSystem
from fsspec.spec import AbstractBufferedFile

from dssm_assets.core.errors import Fault, PartitionMissingError, StorageError, WindowIncompleteError
from dssm_assets.storage import layout
from dssm_assets.storage.files import write_atomic
from dssm_assets.storage.manifest import Column, Manifest, StoredFile

SMALL_BYTES: Final = 4 << 20
"""Files up to this size are fetched whole, in one request."""
KEPT_BYTES: Final = 64 << 20
"""Whole files are kept for the next opening, up to so many bytes over all of them."""
_BLOCK_BYTES: Final = 8 << 20
_NO_TIME: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


class StoredFiles(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """A file system of some stored files and nothing else, read-only."""

    protocol = "stored"
    cachable = False

    def __init__(self, fs: Any, sizes: Mapping[str, int]) -> None:
        """Takes the store's filesystem and path -> size in bytes."""
        super().__init__()
        self.fs = fs
        self.sizes = dict(sizes)
        self._kept: dict[str, bytes] = {}
        self._kept_bytes = 0

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        """Returns name, size and type of a file.

        Raises:
            FileNotFoundError: it is none of the stored files.
        """
        name = self._strip_protocol(path)
        if name not in self.sizes:
            raise FileNotFoundError(name)
        return {"name": name, "size": self.sizes[name], "type": "file"}

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:
        """Returns the stored file of that name; folders are never listed."""
        found = self.info(path)
        return [found] if detail else [found["name"]]

    def modified(self, path: str) -> dt.datetime:
        """Returns one moment for every file: none of them ever changes."""
        return _NO_TIME

    def content(self, path: str) -> bytes:
        """Returns a whole file, fetched at most once while there is room to keep it."""
        if path in self._kept:
            return self._kept[path]
        found = bytes(self.fs.cat_file(path, start=0, end=self.sizes[path]))
        if self._kept_bytes + len(found) <= KEPT_BYTES:
            self._kept[path] = found
            self._kept_bytes += len(found)
        return found

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
        size = self.info(path)["size"]
        return io.BytesIO(self.content(path)) if size <= SMALL_BYTES else _Ranges(self, path, size=size)


class _Ranges(AbstractBufferedFile):  # type: ignore[misc]  # fsspec has no types
    """A large file, of which only what is asked for is fetched."""

    def __init__(self, files: StoredFiles, path: str, size: int) -> None:
        super().__init__(files, path, "rb", block_size=_BLOCK_BYTES, cache_type="readahead", size=size)

    def _fetch_range(self, start: int, end: int) -> bytes:
        return bytes(self.fs.fs.cat_file(self.path, start=start, end=end))


class PartitionStore:
    """Partitions base one root: a folder or an fsspec URL such as `s3://bucket/prefix`."""

    def __init__(self, root: str, options: Mapping[str, Any] | None = None) -> None:
        # A listing that is remembered would hide what another process has written since.
        self.options = {"use_listings_cache": False, **(options or {})}
        self.fs, self.root = fsspec.core.url_to_fs(root, **self.options)
        self.is_local = "file" in (self.fs.protocol if isinstance(self.fs.protocol, tuple) else (self.fs.protocol,))

    @contextlib.contextmanager
    def staging(self) -> Iterator[Path]:
        """Yields an empty local folder to write files aside in; it is gone afterwards.

        It lies on the same disk as a local root, so that placing a file is a rename.
        """
        if self.is_local:
            base = Path(layout.staging_folder(self.root))
            base.mkdir(parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(dir=base))
        else:
            folder = Path(tempfile.mkdtemp(prefix="dssm-staging-"))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @contextlib.contextmanager
    def staging_in_store(self) -> Iterator[str]:
        """Yields a folder inside the store that several machines write files aside in; it is gone afterwards.

        What a killed run leaves there is named by nothing and may be removed.
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
        """Places staged files (path, rows) and makes them the partition; returns its manifest.

        Files of the partition that stood before are removed after the swap. Shared files lie beside the partitions,
        so that many days can name the same ones; they are never removed.
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
        """Makes files that `place` has put beside the standing ones the partition; returns its manifest."""
        return self._show(Manifest(asset, ds, tuple(files), tuple(columns), dict(inputs or {}), dict(facts or {})))

    def publish_shared(self, manifest: Manifest, ds: str, inputs: Mapping[str, str] | None = None) -> Manifest:
        """Makes the shared files of a partition the partition of another day too; returns that day's manifest.

        Args:
            manifest: a partition whose files are shared.
            ds: the other day.
            inputs: what that day's content was made from (default: what the partition names).
        """
        return self._show(replace(manifest, ds=ds, inputs=manifest.inputs if inputs is None else dict(inputs)))

    def _show(self, manifest: Manifest) -> Manifest:
        asset, ds, files = manifest.asset, manifest.ds, manifest.files
        before = self.find(asset, ds)
        self._swap(layout.manifest_path(self.root, asset, ds), manifest.to_json())
        if before is not None:
            kept = {file.path for file in files}
            superseded = [file for file in before.files if file.path not in kept and not layout.is_shared(file.path)]
            folder = layout.partition_folder(self.root, asset, ds)
            for file in superseded:
                with contextlib.suppress(FileNotFoundError):
                    self.fs.rm_file(f"{folder}/{file.path}")
        return manifest

    def find(self, asset: str, ds: str) -> Manifest | None:
        """Returns the manifest of a partition, None where none was written."""
        try:
            # From its first byte on: of a whole file s3fs asks for the size first, and where there is none for a listing.
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
            WindowIncompleteError: naming every day that was never written and the command that fills them.
        """
        found = [self.find(asset, ds) for ds in days]
        lacking = [ds for ds, manifest in zip(days, found, strict=True) if manifest is None]
        if lacking:
            raise WindowIncompleteError(_missing(asset, lacking))
        return [manifest for manifest in found if manifest is not None]

    def days(self, asset: str) -> list[str]:
        """Returns the days of an asset that have a visible partition, ascending."""
        folder = layout.asset_folder(self.root, asset)
        try:
            if not self.is_local:
                # One listing of everything base costs less than a question for each day.
                shown = [path.rpartition("/")[0] for path in self.fs.find(folder) if path.endswith(f"/{layout.MANIFEST}")]
                return sorted(ds for ds in map(layout.ds_of_folder, shown) if ds)
            names = self.fs.ls(folder, detail=False)
        except FileNotFoundError:
            return []
        days = sorted(ds for ds in map(layout.ds_of_folder, names) if ds)
        return [ds for ds in days if self.fs.exists(layout.manifest_path(self.root, asset, ds))]

    def filesystem_for(self, manifests: Iterable[Manifest]) -> Any:
        """Returns the filesystem to read files of partitions with: the store's own, or one that knows their sizes."""
        if self.is_local:
            return self.fs
        return StoredFiles(
            self.fs, {self.file_path(manifest, file): file.bytes for manifest in manifests for file in manifest.files}
        )

    def file_path(self, manifest: Manifest, file: StoredFile) -> str:
        """Returns the path of a file inside the store's filesystem."""
        return layout.file_path(self.root, manifest.asset, manifest.ds, file.path)

    def put_file(self, asset: str, ds: str, path: Path, rows: int, *, is_shared: bool = False) -> StoredFile:
        """Puts a staged file beside the standing ones of a partition, where no manifest names it yet."""
        digest = file_sha256(path)
        stored = layout.content_name(path.name, digest)
        inside = f"{layout.SHARED}/{stored}" if is_shared else stored
        size = path.stat().st_size
        self.move_in(path, layout.file_path(self.root, asset, ds, inside))
        return StoredFile(path.name, inside, size, digest, rows)

    def copy_file(self, asset: str, manifest: Manifest, file: StoredFile) -> StoredFile:
        """Puts a copy of a partition's file beside the standing ones of another asset; an object store copies by itself."""
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

    def _swap(self, path: str, text: str) -> None:
        if not self.is_local:
            self.fs.pipe_file(path, text.encode())
            return
        write_atomic(Path(path), [text.encode()])

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
            raise StorageError(f"partition {manifest.key}: files {wrong} differ from their manifest; materialize it again")


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
    """What a store is opened with; it can be pickled."""

    url: str
    options: Mapping[str, Any]

    @classmethod
    def from_store(cls, partitions: PartitionStore) -> StoreAddress:
        """Returns the address of an open store."""
        return cls(partitions.fs.unstrip_protocol(partitions.root), partitions.options)

    def open(self) -> PartitionStore:
        """Returns the store."""
        return PartitionStore(self.url, self.options)


class OverlayStore(PartitionStore):
    """The partitions of an experiment, and base them the standing ones."""

    def __init__(self, base: PartitionStore, name: str) -> None:
        """Lays the store of the experiment of that name over the standing one."""
        super().__init__(base.fs.unstrip_protocol(layout.experiment_root(base.root, name)), base.options)
        self.base, self.name = base, name
        self._own: set[str] = set()

    def find(self, asset: str, ds: str) -> Manifest | None:
        """Returns the experiment's partition of a day, else the standing one, None where there is neither."""
        own = super().find(asset, ds)
        if own is None:
            return self.base.find(asset, ds)
        self._own.add(_identity(own))
        return own

    def days(self, asset: str) -> list[str]:
        """Returns the days that have a partition in either store, ascending."""
        return sorted({*super().days(asset), *self.base.days(asset)})

    def file_path(self, manifest: Manifest, file: StoredFile) -> str:
        """Returns the path of a file, in the store that its partition was found in."""
        return super().file_path(manifest, file) if self.is_own(manifest) else self.base.file_path(manifest, file)

    def is_own(self, manifest: Manifest) -> bool:
        """Tells whether a partition that this store found is the experiment's own."""
        return _identity(manifest) in self._own

    def _show(self, manifest: Manifest) -> Manifest:
        self._own.add(_identity(manifest))
        return super()._show(manifest)


def experiment_names(base: PartitionStore) -> list[str]:
    """Returns the names of the experiments that have a folder beside the standing partitions, sorted."""
    folder = layout.experiments_folder(base.root)
    listed: Mapping[str, bool] = {} if base.is_local else {"refresh": True}
    try:
        entries = base.fs.ls(folder, detail=False, **listed)
    except FileNotFoundError:
        return []
    return sorted(name for entry in entries if (name := layout.experiment_of_folder(str(entry))) is not None)


def _identity(manifest: Manifest) -> str:
    return f"{manifest.key} {manifest.digest}"
