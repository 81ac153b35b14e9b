"""Serving bundles: folders of files that never change, and the one pointer that says which of them is served.

    <root>/bundles/<bundle_id>/...        the files of a bundle, manifest.json among them
    <root>/current.json                   names the bundle that is served and the one before it

A bundle is written aside and placed whole; then the pointer is replaced in one step (a rename on a local disk, one put on
an object store). Who reads the pointer first and the bundle after it therefore always sees one whole bundle, and a
publisher that fails or is killed leaves what was served.

The pointer also keeps the bundles in the order in which they were served (`trail`) and stored (`stored`): the way back of
a rollback, and what may be cleared away. Folders that it does not name are never touched: another publisher may be about
to place them. Two publishers at once exclude each other on a local disk by a lock; on an object store the pointer is
replaced only if it is still the one that was read (`pointer_file.py`), and the pool of serving_bundle keeps them apart.

Belongs here: bytes, the manifest's file list, the pointer. Does not belong here: what the files mean (`core/serving`).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import fsspec

from dssm_assets.core.errors import Fault, PartitionMissingError, StorageError
from dssm_assets.storage import layout
from dssm_assets.storage.local_files import is_local, local_staging, write_atomic
from dssm_assets.storage.partitions import file_sha256


@dataclass(frozen=True)
class Pointer:
    """What current.json says.

    Attributes:
        bundle_id: the bundle that is served.
        previous: the one that a rollback goes to, None where there is none.
        ds: evaluation day of the bundle that is served.
        trail: the bundles that were served up to now, the present one last; those that were rolled back are left out.
        stored: all bundles in the order in which they were stored.
    """

    bundle_id: str
    previous: str | None
    ds: str
    trail: tuple[str, ...]
    stored: tuple[str, ...]

    @classmethod
    def from_trail(cls, trail: tuple[str, ...], stored: tuple[str, ...], ds: str) -> Pointer:
        """Returns the pointer to the last bundle of a trail."""
        return cls(trail[-1], trail[-2] if len(trail) > 1 else None, ds, trail, stored)

    @classmethod
    def from_json(cls, text: str | bytes) -> Pointer:
        """Returns the pointer that a stored text describes.

        Raises:
            ValueError, KeyError, TypeError: it describes none.
        """
        found = json.loads(text)
        trail, stored = (tuple(map(str, found[key])) for key in ("trail", "stored"))
        pointer = cls.from_trail(trail or (str(found["bundle_id"]),), stored, str(found["ds"]))
        if (pointer.bundle_id, pointer.previous) != (found["bundle_id"], found["previous"]):
            raise ValueError("bundle_id and previous are not the end of trail")
        return pointer

    def to_json(self) -> str:
        """Returns the stored text."""
        return json.dumps(asdict(self), indent=1) + "\n"

    def back_to(self, bundle_id: str, ds: str) -> Pointer:
        """Returns the pointer to a stored bundle; what was served after it is left out of the trail."""
        if bundle_id in self.trail:
            return Pointer.from_trail(self.trail[: self.trail.index(bundle_id) + 1], self.stored, ds)
        return Pointer.from_trail((*self.trail, bundle_id), self.stored, ds)

    def without(self, gone: Collection[str]) -> Pointer:
        """Returns the pointer with some bundles forgotten, never the one that is served."""
        trail, stored = (tuple(kept for kept in ids if kept not in gone) for ids in (self.trail, self.stored))
        return Pointer.from_trail(trail, stored, self.ds)

    def surplus(self, keep: int) -> tuple[str, ...]:
        """Returns the stored bundles, the oldest first, that go if so many stay. The one served and its previous stay."""
        needed = {self.bundle_id, self.previous}
        spare = [kept for kept in self.stored if kept not in needed]
        room = max(0, keep - (len(self.stored) - len(spare)))
        return tuple(spare[: max(0, len(spare) - room)])


def after_publish(before: Pointer | None, bundle_id: str, ds: str) -> Pointer:
    """Returns the pointer once a bundle of a day is stored: to it, unless what is served is of a later day."""
    if before is None:
        return Pointer.from_trail((bundle_id,), (bundle_id,), ds)
    stored = (*(kept for kept in before.stored if kept != bundle_id), bundle_id)
    if ds < before.ds:
        return Pointer.from_trail(before.trail, stored, before.ds)
    return Pointer.from_trail((*(kept for kept in before.trail if kept != bundle_id), bundle_id), stored, ds)


_TRIES: Final = 8
_LOST: Final = frozenset({"PreconditionFailed", "ConditionalRequestConflict"})
"""What S3 answers to a put whose condition no longer holds."""


class PointerFile:
    """The pointer of one serving root."""

    def __init__(self, fs: Any, root: str, *, is_local: bool) -> None:
        self.path = layout.pointer_path(root)
        self._fs = fs
        self._is_local = is_local
        self._is_s3 = "s3" in (fs.protocol if isinstance(fs.protocol, tuple) else (fs.protocol,))

    def read(self) -> Pointer | None:
        """Returns what is served now, None where nothing was ever published.

        Raises:
            StorageError: the file is no pointer.
        """
        try:
            text = self._fs.cat_file(self.path, start=0)
        except FileNotFoundError:
            return None
        try:
            return Pointer.from_json(text)
        except (ValueError, KeyError, TypeError) as error:
            raise StorageError(f"{self.path}: not a pointer to a bundle ({error}); put it right by hand") from error

    def move(self, change: Callable[[Pointer | None], Pointer]) -> Pointer:
        """Replaces the pointer by what `change` makes of the one before; returns it.

        `change` is called again with the newer one if somebody else was faster.

        Raises:
            StorageError: the file is no pointer, or others were faster every time.
        """
        for _ in range(_TRIES):
            mark = self._mark()
            pointer = change(self.read())
            if self._replace(pointer.to_json(), mark):
                return pointer
        raise StorageError(f"{self.path}: other publishers moved it {_TRIES} times meanwhile; publish again")

    def _mark(self) -> dict[str, str]:
        """Returns the condition under which the file is still the one that is there now."""
        if not self._is_s3:
            return {}
        try:
            # Before the content is read: if it changes in between, the condition fails, as it should.
            return {"IfMatch": str(self._fs.info(self.path, refresh=True)["ETag"])}
        except FileNotFoundError:
            return {"IfNoneMatch": "*"}

    def _replace(self, text: str, mark: dict[str, str]) -> bool:
        if not self._is_local:
            try:
                self._fs.pipe_file(self.path, text.encode(), **mark)
            except OSError as error:
                answer = getattr(error.__cause__, "response", {})
                if mark and answer.get("Error", {}).get("Code") in _LOST:
                    return False
                raise
            return True
        write_atomic(Path(self.path), [text.encode()])
        return True


FORMAT: Final = 1


@dataclass(frozen=True)
class Published:
    """What became of a bundle: its id and manifest, the pointer now, which bundles were cleared away."""

    bundle_id: str
    manifest: Mapping[str, Any]
    pointer: Pointer
    pruned: tuple[str, ...]

    @property
    def is_current(self) -> bool:
        """Tells whether the bundle is the one that is served."""
        return self.pointer.bundle_id == self.bundle_id


class BundleStore:
    """The bundles below one root: a folder or an fsspec URL."""

    def __init__(self, root: str, options: Mapping[str, Any] | None = None) -> None:
        # A listing that is remembered would hide what another process has published since.
        self.fs, path = fsspec.core.url_to_fs(root, **{"use_listings_cache": False, **(options or {})})
        self.root = str(path).rstrip("/")
        self.is_local = is_local(self.fs)
        self._pointer = PointerFile(self.fs, self.root, is_local=self.is_local)

    def staging(self) -> contextlib.AbstractContextManager[Path]:
        """Returns a context manager that yields an empty local folder for a bundle's files; it is removed afterwards."""
        return local_staging(self.root, is_root_local=self.is_local)

    def publish(self, folder: Path, body: Mapping[str, Any], keep: int) -> Published:
        """Makes a bundle of the files in a staging folder and serves it.

        A bundle of an earlier day than the one that is served is stored and not served: a backfill does not turn back
        the clock. `rollback` serves it.

        Args:
            folder: from `staging`; its files, at any depth, are the bundle's. It is empty afterwards.
            body: the manifest but for `format` and `files`; `ds` is its evaluation day.
            keep: stored bundles that stay, at least 2; the one served and the one before it always do.
        """
        files = {name: {"sha256": file_sha256(path), "bytes": path.stat().st_size} for name, path in _files(folder)}
        manifest = {"format": FORMAT, **body, "files": files}
        ds = str(body["ds"])
        bundle_id = f"{ds}-{content_digest(manifest)[:12]}"
        with self._locked():
            self._place(folder, bundle_id, manifest)
            pointer = self._pointer.move(lambda before: after_publish(before, bundle_id, ds))
            pruned = pointer.surplus(keep)
            for old in pruned:
                self._remove(old)
            if pruned:
                pointer = self._pointer.move(lambda now: (now or pointer).without(pruned))
        return Published(bundle_id, manifest, pointer, pruned)

    def rollback(self, to: str | None = None) -> Pointer:
        """Serves the bundle before the present one, or any stored one; returns the new pointer.

        Raises:
            PartitionMissingError: nothing was ever published, there is no bundle to go back to, or it is not stored.
            StorageError: that bundle is not what its manifest says; what is served stays.
        """
        with self._locked():
            before = self.pointer()
            if before is None:
                raise PartitionMissingError(_fault(self.root, "a published bundle", "none", "materialize serving_bundle first"))
            wanted = to or before.previous
            if wanted is None or wanted not in before.stored:
                others = ", ".join(kept for kept in before.stored if kept != before.bundle_id) or "none"
                expected = "a bundle that is stored" if to else f"a bundle that was served before {before.bundle_id}"
                got, remedy = to or "none", f"choose one of those that are stored: {others}"
                raise PartitionMissingError(_fault(self.root, expected, got, remedy))
            self.verify(wanted)
            ds = str(self.manifest(wanted)["ds"])
            return self._pointer.move(lambda now: (now or before).back_to(wanted, ds))

    def pointer(self) -> Pointer | None:
        """Returns what is served now, None where nothing was ever published.

        Raises:
            StorageError: the file is no pointer.
        """
        return self._pointer.read()

    def manifest(self, bundle_id: str) -> dict[str, Any]:
        """Returns the manifest of a bundle.

        Raises:
            PartitionMissingError: there is no such bundle.
        """
        try:
            return dict(json.loads(self.fs.cat_file(f"{self.folder(bundle_id)}/{layout.BUNDLE_MANIFEST}")))
        except FileNotFoundError as error:
            got, remedy = "no such bundle", "ask for one that current.json names"
            raise PartitionMissingError(_fault(f"{self.root}, bundle {bundle_id}", "its manifest", got, remedy)) from error

    def folder(self, bundle_id: str) -> str:
        """Returns where the files of a bundle lie, inside the store's filesystem."""
        return layout.bundle_folder(self.root, bundle_id)

    def verify(self, bundle_id: str) -> None:
        """Checks every file of a bundle against its manifest, and the manifest against the id.

        Raises:
            StorageError: naming the files that are missing or differ.
        """
        manifest = self.manifest(bundle_id)
        wrong = [] if bundle_id.endswith(content_digest(manifest)[:12]) else [layout.BUNDLE_MANIFEST]
        wrong += [name for name, entry in manifest["files"].items() if self._sha256(bundle_id, name) != entry["sha256"]]
        if wrong:
            raise StorageError(f"bundle {bundle_id}: files {wrong} differ from the manifest; publish it again")

    def _place(self, folder: Path, bundle_id: str, manifest: Mapping[str, Any]) -> None:
        with contextlib.suppress(PartitionMissingError, StorageError):
            self.verify(bundle_id)
            return  # The very bundle is there already.
        target = self.folder(bundle_id)
        (folder / layout.BUNDLE_MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        if not self.is_local:
            for name in (*manifest["files"], layout.BUNDLE_MANIFEST):  # The manifest last: with it the bundle is whole.
                self.fs.put_file(str(folder / name), f"{target}/{name}")
            return
        for name in (*manifest["files"], layout.BUNDLE_MANIFEST):
            (folder / name).chmod(0o644)
            with (folder / name).open("rb") as handle:
                os.fsync(handle.fileno())
        folder.chmod(0o755)  # mkdtemp's folders are open to their owner alone
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)
        folder.rename(target)

    def _remove(self, bundle_id: str) -> None:
        """Removes a bundle, its manifest first: from then on nobody takes what is left for whole."""
        target = self.folder(bundle_id)
        with contextlib.suppress(FileNotFoundError):
            self.fs.rm_file(f"{target}/{layout.BUNDLE_MANIFEST}")
        with contextlib.suppress(FileNotFoundError):
            self.fs.rm(target, recursive=True)

    def _sha256(self, bundle_id: str, name: str) -> str | None:
        try:
            with self.fs.open(f"{self.folder(bundle_id)}/{name}", "rb") as handle:
                return hashlib.file_digest(handle, "sha256").hexdigest()
        except FileNotFoundError:
            return None

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        if not self.is_local:
            yield
            return
        Path(self.root).mkdir(parents=True, exist_ok=True)
        with (Path(self.root) / ".lock").open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield


def content_digest(manifest: Mapping[str, Any]) -> str:
    """Returns the digest of all that a manifest says: equal bundles, equal digest, wherever and whenever they were made."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _files(folder: Path) -> list[tuple[str, Path]]:
    """Returns the files below a folder with their paths relative to it, by name."""
    found = [(path.relative_to(folder).as_posix(), path) for path in folder.rglob("*") if path.is_file()]
    return sorted((name, path) for name, path in found if name != layout.BUNDLE_MANIFEST)


def _fault(where: str, expected: str, got: str, remedy: str) -> Fault:
    return Fault(f"serving root {where}", expected, got, remedy)
