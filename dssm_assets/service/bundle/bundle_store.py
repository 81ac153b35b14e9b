"""Stores serving bundles: immutable folders of files, and one pointer to the served bundle.

    <root>/bundles/<bundle_id>/...        the files of a bundle, manifest.json among them
    <root>/current.json                   the pointer: the served bundle and the one before it

A bundle is first staged and stored completely. Then the pointer is replaced in one step (a rename on a local disk, one put on an
object store). A reader opens the pointer first, so it always finds a complete bundle. If a publisher fails or is killed, the served
bundle stays unchanged.

The pointer also lists the bundles in the order of serving (`trail`), for rollbacks, and in the order of storing (`stored`), for
pruning. A folder that is not listed may belong to a publisher at work, so only `leftovers.py` removes such folders, once they are
old. On a local disk, publishers exclude each other by a lock. On an object store, the pointer is replaced only if it is unchanged
since it was read.

A delta is a bundle like any other. Its manifest names the whole bundle that it refreshes (`delta.base`). Its unchanged files are
hard links to that bundle's files on a local disk, copies on an object store. If the served bundle changes while a delta is made,
the delta is not published.

With a key, each new manifest gets a signature beside it. Deltas and rollbacks then need a base that the same key has signed.

Belongs here: bytes, the manifest's file list, the pointer. Does not belong here: the meaning of the files (`bundle_contents.py`).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from dssm_assets.core.errors import (
    Fault,
    PartitionMissingError,
    PartitionReplacedError,
    SignatureError,
    StorageError,
    remedy_of_missing,
)
from dssm_assets.installed_extras import load_extra
from dssm_assets.storage import layout
from dssm_assets.storage.config_file import LoadedConfig
from dssm_assets.storage.files import check_file
from dssm_assets.storage.hidden_list import HiddenList
from dssm_assets.storage.local_files import ScratchFolder, folder_lock, is_local, local_staging, remove_abandoned, sync_folder
from dssm_assets.storage.locations import location_errors, open_location, put_if, unchanged_condition
from dssm_assets.storage.partitions import file_sha256


@dataclass(frozen=True)
class Pointer:
    """The content of current.json.

    Attributes:
        trail: the bundles served so far, the current bundle last. Bundles that were rolled back are left out.
        stored: all bundles in the order of storing.
        ds: evaluation day of the served bundle.
    """

    trail: tuple[str, ...]
    stored: tuple[str, ...]
    ds: str

    @property
    def bundle_id(self) -> str:
        return self.trail[-1]

    @property
    def previous(self) -> str | None:
        return self.trail[-2] if len(self.trail) > 1 else None

    @classmethod
    def from_json(cls, text: str | bytes) -> Pointer:
        """Parses a pointer. Raises a ValueError, KeyError or TypeError if the text is no pointer."""
        found = json.loads(text)
        pointer = cls(tuple(map(str, found["trail"])), tuple(map(str, found["stored"])), str(found["ds"]))
        if not pointer.trail or (pointer.bundle_id, pointer.previous) != (found["bundle_id"], found["previous"]):
            raise ValueError("bundle_id and previous are not the end of trail")
        return pointer

    def to_json(self) -> str:
        content = {"bundle_id": self.bundle_id, "previous": self.previous, "ds": self.ds}
        return json.dumps({**content, "trail": self.trail, "stored": self.stored}, indent=1) + "\n"

    def back_to(self, bundle_id: str, ds: str) -> Pointer:
        """Returns a pointer to a stored bundle. Later bundles are removed from the trail."""
        end = self.trail.index(bundle_id) if bundle_id in self.trail else len(self.trail)
        return Pointer((*self.trail[:end], bundle_id), self.stored, ds)

    def renamed(self, names: Mapping[str, str]) -> Pointer:
        """Returns the pointer with some bundles renamed."""
        trail, stored = (tuple(names.get(bundle_id, bundle_id) for bundle_id in ids) for ids in (self.trail, self.stored))
        return Pointer(trail, stored, self.ds)

    def without(self, removed: Collection[str]) -> Pointer:
        """Returns the pointer without the removed bundles. The served bundle must not be one of them."""
        trail, stored = (tuple(kept for kept in ids if kept not in removed) for ids in (self.trail, self.stored))
        return Pointer(trail, stored, self.ds)

    def surplus(self, keep: int, bases: Mapping[str, str]) -> tuple[str, ...]:
        """Returns the stored bundles to remove, oldest first, so that `keep` whole bundles remain.

        The served bundle and the previous one always stay, with their whole bundles if they are deltas. Other deltas are removed.

        Args:
            bases: delta -> whole bundle that it refreshes.
        """
        needed = set(self.trail[-2:])
        needed |= {bases[bundle_id] for bundle_id in needed if bundle_id in bases}
        whole = [kept for kept in self.stored if kept not in bases]
        spare = [kept for kept in whole if kept not in needed]
        gone = set(spare[: max(0, min(len(spare), len(whole) - keep))])
        return tuple(kept for kept in self.stored if kept in gone or (kept in bases and kept not in needed))


def after_publish(before: Pointer | None, bundle_id: str, ds: str) -> Pointer:
    """Returns the pointer after a bundle was stored. It serves this bundle, unless the served bundle is of a later day."""
    if before is None:
        return Pointer((bundle_id,), (bundle_id,), ds)
    trail, stored = ((*(kept for kept in ids if kept != bundle_id), bundle_id) for ids in (before.trail, before.stored))
    return Pointer(before.trail, stored, before.ds) if ds < before.ds else Pointer(trail, stored, ds)


_TRIES: Final = 8
_WHERE: Final = "serving root"
FORMAT: Final = 2
"""Format of newly written bundles. Format 2 may have channels."""
READABLE_FORMATS: Final = (1, 2)
SIGNING_KEY: Final = "DSSM_SIGNING_KEY"
"""Environment variable with the name of the file of the publisher's private key."""


class BundleKeys(Protocol):
    """The keys for signing and checking bundles (`extras/signatures`)."""

    def sign(self, manifest: bytes) -> bytes | None:
        """Returns the signature of a manifest, None without a signing key."""

    def check(self, bundle_id: str, manifest: bytes, signature: bytes | None) -> None:
        """Raises a SignatureError unless a trusted key has signed the manifest. `signature`: None if there is none."""


@dataclass(frozen=True)
class Published:
    """The result of publishing a bundle: its id and manifest, the new pointer, the removed bundles."""

    bundle_id: str
    manifest: Mapping[str, Any]
    pointer: Pointer
    pruned: tuple[str, ...]

    @property
    def is_current(self) -> bool:
        return self.pointer.bundle_id == self.bundle_id


class FetchedBundle(NamedTuple):
    """A bundle on the local disk. If remote files were copied, the `copy` is removed with this object."""

    bundle_id: str
    manifest: dict[str, Any]
    folder: Path
    copy: ScratchFolder | None


class BundleStore:
    """The bundles below one root, a folder or an fsspec URL. For reading, also the folder of a single bundle."""

    def __init__(self, root: str, options: Mapping[str, Any] | None = None, keys: BundleKeys | None = None) -> None:
        """Opens the bundles. With `keys`, bundles are signed when written and must be signed when verified."""
        # A cached listing would hide bundles of other processes.
        self.fs, path = open_location(root, _WHERE, {"use_listings_cache": False, **(options or {})})
        self.root, self._keys = path.rstrip("/"), keys
        self.is_local = is_local(self.fs)
        self.hidden = HiddenList(self.fs, self.root)
        self._pointer_path = layout.inside(self.root, layout.CURRENT)

    def check_can_sign(self) -> None:
        """Raises a SignatureError if stored bundles are signed but no key can sign now: services that need signatures would stop."""
        pointer = self.pointer() if self._keys is None else None
        stored = () if pointer is None else pointer.stored
        signed = [one for one in stored if self.fs.exists(f"{self.folder(one)}/{layout.BUNDLE_SIGNATURE}")]
        if signed:
            where, expected = (
                f"environment variable {SIGNING_KEY}",
                f"the file of a key, as bundles are signed: {', '.join(signed)}",
            )
            remedy = f"set it; or, to go on without signatures, remove {layout.BUNDLE_SIGNATURE} of these bundles"
            raise SignatureError(str(Fault(where, expected, "no value", remedy)))

    def staging(self) -> ScratchFolder:
        """Returns an empty local folder for a bundle's files.

        If users are forgotten after this call, the bundle cannot be published.

        Raises:
            SignatureError: see `check_can_sign`.
        """
        self.check_can_sign()
        self.hidden.note()
        return local_staging(self.root, is_root_local=self.is_local)

    def publish(
        self, folder: Path, body: Mapping[str, Any], keep: int, *, base: str | None = None, served: str | None = None
    ) -> Published:
        """Makes a bundle from the files in a staging folder and serves it.

        If its day is before the served bundle's day, such as in a backfill, the bundle is only stored. `rollback` can serve it.

        Args:
            folder: result of `staging`. All its files, at any depth, go into the bundle. It is empty afterwards.
            body: the manifest without `format`, `files` and `delta.base`; `ds` is the evaluation day.
            keep: number of whole bundles to keep, at least 2. The served bundle and the previous one are always kept.
            base: for a delta, the whole bundle that it refreshes. Files that the folder lacks are taken from it.
            served: for a delta, the bundle that was served when the delta began.

        Raises:
            PartitionReplacedError: `served` is not served any more, or the whole bundle is not stored. Nothing changes.
            StorageError: the whole bundle differs from its manifest. Nothing changes.
        """
        own = _describe_files(folder)
        files = own if base is None else self.fetch(base).manifest["files"] | own
        delta = {} if base is None else {"delta": {**body.get("delta", {}), "base": base}}
        manifest = {"format": FORMAT, **body, **delta, "files": dict(sorted(files.items()))}
        bundle_id, pruned = bundle_id_of(manifest), list[str]()

        def serve(before: Pointer | None) -> Pointer:
            self._check_served(before, served)
            self.hidden.check_unchanged(f"serving root {self.root}, bundle {bundle_id}")
            after = after_publish(before, bundle_id, str(manifest["ds"]))
            pruned[:] = after.surplus(keep, self._bases(after.stored))
            return after.without(pruned)

        with self.locked():
            self._check_served(self.pointer(), served)
            self.hidden.check_unchanged(f"serving root {self.root}, bundle {bundle_id}")
            self._store(folder, manifest, own, base or "")
            try:
                pointer = self.replace_pointer(serve)
            except PartitionReplacedError:  # removed at once, because nobody may read the forgotten users' rows in it
                if (now := self.pointer()) is None or bundle_id not in now.stored:
                    self.remove(bundle_id)
                raise
            for old in pruned:  # no longer listed; if this publisher is killed, they are leftovers
                self.remove(old)
        return Published(bundle_id, manifest, pointer, tuple(pruned))

    def store_again(self, fetched: FetchedBundle, folder: Path, changes: Mapping[str, Any]) -> str:
        """Stores a changed bundle: files of `folder` replace its own files, `changes` its manifest's entries. Returns the new id.

        No pointer names it yet.
        """
        own = _describe_files(folder)
        manifest = {**fetched.manifest, **changes, "files": fetched.manifest["files"] | own}
        with self.locked():
            self._store(folder, manifest, own, fetched.bundle_id)
        return bundle_id_of(manifest)

    def _check_served(self, pointer: Pointer | None, expected: str | None) -> None:
        found = "none" if pointer is None else pointer.bundle_id
        if expected is not None and found != expected:
            where, remedy = f"serving root {self.root}, served bundle", "publish the delta again: it then refreshes that bundle"
            raise PartitionReplacedError(Fault(where, f"{expected}, as when the delta began", found, remedy))

    def _bases(self, stored: Collection[str]) -> dict[str, str]:
        """Returns delta -> whole bundle that it refreshes."""
        bases = {}
        for bundle_id in stored:
            with contextlib.suppress(PartitionMissingError, StorageError):  # removed by hand, or damaged
                if (base := base_of(self.manifest(bundle_id))) is not None:
                    bases[bundle_id] = base
        return bases

    def rollback(self, to: str | None = None) -> Pointer:
        """Serves the previous bundle, or the stored bundle `to`, after verifying its files. Returns the new pointer.

        Raises:
            PartitionMissingError: nothing was published yet, there is no previous bundle, or the bundle is not stored.
        """
        with self.locked():
            wanted = self._choose(self.pointer(), to)[1]
            ds = str(self.fetch(wanted).manifest["ds"])
            # Checked again for each pointer, because another publisher may have pruned the bundle.
            return self.replace_pointer(lambda now: self._choose(now, wanted)[0].back_to(wanted, ds))

    def _choose(self, pointer: Pointer | None, to: str | None) -> tuple[Pointer, str]:
        """Returns the pointer, and the bundle to go back to: `to`, or by default the previous bundle."""
        if pointer is None:
            raise PartitionMissingError(_fault(self.root, "a published bundle", "none", remedy_of_missing("publish", "DAY")))
        wanted = to or pointer.previous
        if wanted is None or wanted not in pointer.stored:
            others = ", ".join(kept for kept in pointer.stored if kept != pointer.bundle_id) or "none"
            expected = "a bundle that is stored" if to else f"a bundle that was served before {pointer.bundle_id}"
            got, remedy = to or "none", f"choose one of the stored bundles: {others}"
            raise PartitionMissingError(_fault(self.root, expected, got, remedy))
        return pointer, wanted

    def pointer(self) -> Pointer | None:
        """Returns the current pointer, None before the first publishing. Raises a StorageError if the file is no pointer."""
        path = self._pointer_path
        try:
            with location_errors(path, _WHERE, may_be_missing=True):
                check_file(self.fs, path)
                text = self.fs.cat_file(path, start=0)
        except FileNotFoundError:
            return None
        try:
            return Pointer.from_json(text)
        except (ValueError, KeyError, TypeError) as error:
            raise StorageError(f"{path}: not a pointer to a bundle ({error}). To fix: correct it by hand") from error

    def current_id(self) -> str:
        """Returns the id of the served bundle. Raises a PartitionMissingError if no bundle was ever published."""
        pointer = self.pointer()
        if pointer is not None:
            return pointer.bundle_id
        if self._is_one_bundle():
            return bundle_id_of(self.manifest(self.root.rpartition("/")[2], self.root))
        remedy = "run dssm-assets publish, which publishes the last evaluated day, or correct the path"
        raise PartitionMissingError(_fault(self.root, f"a file {layout.CURRENT}", "none", remedy))

    def _is_one_bundle(self) -> bool:
        return bool(self.fs.exists(f"{self.root}/{layout.BUNDLE_MANIFEST}"))

    def replace_pointer(self, change: Callable[[Pointer | None], Pointer]) -> Pointer:
        """Replaces the pointer by `change(pointer)`. Returns the new pointer. If another publisher was faster, calls `change` again.

        Raises:
            StorageError: the file is not a pointer, or others were faster at every attempt.
        """
        for _ in range(_TRIES):
            # Made before the content is read, so that a change in between makes the condition fail.
            condition = unchanged_condition(self.fs, self._pointer_path)
            pointer = change(self.pointer())
            if put_if(self.fs, self._pointer_path, pointer.to_json().encode(), condition):
                if self.is_local:
                    sync_folder(Path(self._pointer_path).parent)
                return pointer
        raise StorageError(f"{self._pointer_path}: other publishers replaced it {_TRIES} times meanwhile. To fix: run it again")

    def folder(self, bundle_id: str) -> str:
        return layout.inside(self.root, layout.BUNDLES, bundle_id)

    def fetch(self, bundle_id: str, *, is_verified: bool = True) -> FetchedBundle:
        """Returns a bundle in a local folder. First checks its files against the manifest, and the manifest against the id.

        If bundles must be signed, the folder is a copy that no other user can write.

        Args:
            is_verified: check signature and sha256, not only sizes.

        Raises:
            PartitionMissingError: there is no such bundle.
            StorageError: files are missing or differ from the manifest. A SignatureError if a required signature is missing.
        """
        remote = self.root if self._is_one_bundle() else self.folder(bundle_id)
        manifest, copy = self.manifest(bundle_id, remote, is_verified=is_verified), None
        wrong, local, files = list[str](), Path(remote), sorted(manifest["files"].items())
        if not self.is_local or (is_verified and self._keys is not None):
            for name, entry in files:  # before copying, because an oversized file would fill the disk
                with contextlib.suppress(FileNotFoundError):
                    wrong += _compare_size(name, int(self.fs.info(f"{remote}/{name}")["size"]), entry)
            _raise_if_wrong(bundle_id, wrong)
            remove_abandoned("bundle")
            copy = ScratchFolder("bundle")
            local = copy.path
        for name, entry in files:
            try:
                self._check_regular(bundle_id, f"{remote}/{name}")
                if copy is not None:
                    (local / name).parent.mkdir(parents=True, exist_ok=True)
                    self.fs.get_file(f"{remote}/{name}", str(local / name))
                found = _compare_size(name, (local / name).stat().st_size, entry)
                if not found and is_verified and file_sha256(local / name) != entry["sha256"]:
                    found = [f"{name} has another sha256"]
                wrong += found
            except FileNotFoundError:
                wrong.append(f"{name} is missing")
        _raise_if_wrong(bundle_id, wrong)
        return FetchedBundle(bundle_id, manifest, local, copy)

    def manifest(self, bundle_id: str, folder: str | None = None, *, is_verified: bool = False) -> dict[str, Any]:
        """Returns the manifest of a bundle, read from `folder` (default: the stored bundle's folder).

        With `is_verified`, also checks id and signature.

        Raises:
            PartitionMissingError: there is no such bundle.
            StorageError: the manifest cannot be read, has an unknown format or belongs to another bundle. For SignatureError see `fetch`.
        """
        folder = folder or self.folder(bundle_id)
        try:
            content = self._read_file(bundle_id, f"{folder}/{layout.BUNDLE_MANIFEST}")
            if is_verified and self._keys is not None:
                signature = None
                with contextlib.suppress(FileNotFoundError):
                    signature = self._read_file(bundle_id, f"{folder}/{layout.BUNDLE_SIGNATURE}")
                self._keys.check(bundle_id, content, signature)
            manifest: dict[str, Any] = json.loads(content)
            written_format, names = manifest.get("format"), list(manifest["files"])
        except FileNotFoundError as error:
            got, remedy = "no such bundle", "choose one that current.json lists"
            raise PartitionMissingError(_fault(f"{self.root}, bundle {bundle_id}", "its manifest", got, remedy)) from error
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
            raise broken(bundle_id, f"{layout.BUNDLE_MANIFEST} cannot be read ({error})") from error
        if written_format not in READABLE_FORMATS:
            readable = ", ".join(map(str, READABLE_FORMATS))
            raise broken(bundle_id, f"it has format {written_format!r}, this version reads {readable}")
        if any(name.startswith("/") or ".." in name.split("/") for name in names):
            raise broken(bundle_id, f"{layout.BUNDLE_MANIFEST} names files outside the bundle")
        if is_verified and bundle_id_of(manifest) != bundle_id:
            raise broken(bundle_id, f"{layout.BUNDLE_MANIFEST} belongs to bundle {bundle_id_of(manifest)}")
        return manifest

    def _read_file(self, bundle_id: str, path: str) -> bytes:
        self._check_regular(bundle_id, path)
        return bytes(self.fs.cat_file(path))

    def _check_regular(self, bundle_id: str, path: str) -> None:
        """Raises a StorageError for a special file such as a pipe (it may never end), a FileNotFoundError for a missing file."""
        try:
            check_file(self.fs, path)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise broken(bundle_id, str(error)) from error

    def write_manifest(self, folder: Path, manifest: Mapping[str, Any]) -> tuple[str, ...]:
        """Writes the manifest of a bundle into its local folder, and a signature if a key can sign.

        Returns the names of the written files in the order of storing. The manifest is last, because it completes the bundle.
        """
        content = (json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode()
        (folder / layout.BUNDLE_MANIFEST).write_bytes(content)
        signature = None if self._keys is None else self._keys.sign(content)
        if signature is None:
            return (layout.BUNDLE_MANIFEST,)
        (folder / layout.BUNDLE_SIGNATURE).write_bytes(signature)
        return layout.BUNDLE_SIGNATURE, layout.BUNDLE_MANIFEST

    def _store(self, folder: Path, manifest: Mapping[str, Any], own: Collection[str], base: str) -> None:
        """Stores a bundle. Files not in `own` are linked or copied from the stored bundle `base`."""
        bundle_id = bundle_id_of(manifest)
        with contextlib.suppress(PartitionMissingError, StorageError):
            self.fetch(bundle_id)
            return  # the same bundle is stored already, and signed if a key signs
        target, shared = self.folder(bundle_id), [name for name in manifest["files"] if name not in own]
        own = [*own, *self.write_manifest(folder, manifest)]
        if not self.is_local:
            with self.reading(base):
                for name in shared:
                    self.fs.cp_file(f"{self.folder(base)}/{name}", f"{target}/{name}")
            for name in own:
                self.fs.put_file(str(folder / name), f"{target}/{name}")
            return
        with self.reading(base):
            for name in shared:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                _link(f"{self.folder(base)}/{name}", str(folder / name))
        for name in own:
            (folder / name).chmod(0o644)
            with (folder / name).open("rb") as handle:
                os.fsync(handle.fileno())
        for inner in {(folder / name).parent for name in manifest["files"]} | {folder}:
            sync_folder(inner)
        folder.chmod(0o755)  # only the owner can read folders of mkdtemp
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)
        folder.rename(target)
        sync_folder(Path(target).parent)

    @contextlib.contextmanager
    def reading(self, bundle_id: str) -> Iterator[None]:
        """Inside the block, a file that is missing because its bundle was removed raises a PartitionReplacedError."""
        try:
            yield
        except FileNotFoundError as error:
            if self.fs.exists(f"{self.folder(bundle_id)}/{layout.BUNDLE_MANIFEST}"):
                raise
            got, remedy = f"a bundle that was removed meanwhile ({error})", "publish the delta again, for the served bundle"
            raise PartitionReplacedError(_fault(f"{self.root}, bundle {bundle_id}", "its files", got, remedy)) from error

    def remove(self, bundle_id: str) -> None:
        """Removes a bundle. The manifest is removed first, so that a half-removed bundle does not look complete."""
        target = self.folder(bundle_id)
        with contextlib.suppress(FileNotFoundError):
            self.fs.rm_file(f"{target}/{layout.BUNDLE_MANIFEST}")
        with contextlib.suppress(FileNotFoundError):
            self.fs.rm(target, recursive=True)

    def locked(self) -> contextlib.AbstractContextManager[None]:
        """Keeps other publishers out, on a local disk."""
        return folder_lock(self.root) if self.is_local else contextlib.nullcontext()


def open_bundles(loaded: LoadedConfig) -> BundleStore:
    """Returns the store of a configuration's bundles, `<storage.root>/serving`. It signs with the key named by DSSM_SIGNING_KEY."""
    file = os.environ.get(SIGNING_KEY, "").strip()
    keys: BundleKeys | None = load_extra("signatures", "ed25519").read_private_key(file) if file else None
    return BundleStore(layout.serving_root(loaded.root), loaded.config.storage.options, keys)


def bundle_id_of(manifest: Mapping[str, Any]) -> str:
    """Returns the bundle's id: the day, and a digest of the content. Equal bundles have equal ids."""
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    return f"{manifest.get('ds')}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def base_of(manifest: Mapping[str, Any]) -> str | None:
    """Returns the whole bundle behind a delta, None for a whole bundle."""
    delta = manifest.get("delta")
    return None if delta is None else str(delta["base"])


def broken(bundle_id: str, problem: str) -> StorageError:
    return StorageError(f"bundle {bundle_id}: {problem}. To fix: publish the bundle again")


def _compare_size(name: str, size: int, entry: Mapping[str, Any]) -> list[str]:
    return [] if size == int(entry["bytes"]) else [f"{name} has {size} bytes instead of {entry['bytes']}"]


def _raise_if_wrong(bundle_id: str, wrong: Collection[str]) -> None:
    if wrong:
        raise broken(bundle_id, f"files differ from the manifest: {'; '.join(wrong)}")


def _describe_files(folder: Path) -> dict[str, dict[str, Any]]:
    paths = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {name: {"sha256": file_sha256(path), "bytes": path.stat().st_size} for name, path in paths.items()}


def _link(source: str, target: str) -> None:
    """Gives a file a second name. Copies it if the filesystem has no hard links."""
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(source, target)
        with Path(target).open("rb") as handle:
            os.fsync(handle.fileno())


def _fault(where: str, expected: str, got: str, remedy: str) -> Fault:
    return Fault(f"serving root {where}", expected, got, remedy)
