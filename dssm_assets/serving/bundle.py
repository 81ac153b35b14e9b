"""One serving bundle, opened whole: checked against its manifest, its tables memory-mapped.

Belongs here: fetching a bundle from a remote store, checking it, opening its tables and its index. Does not belong here:
which bundle is current (`bundle_root.py`), writing bundles (`storage/bundles.py`), answering from one (`engine.py`).

A `Bundle` never changes. A file that is replaced or removed under it does not disturb it: the maps keep the old content.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from dssm_assets.core import columns as col
from dssm_assets.core.errors import Fault, InputError, PartitionMissingError, StorageError
from dssm_assets.core.file_names import BundleFile
from dssm_assets.serving.id_rows import IdRows, VectorRows
from dssm_assets.storage.bundles import FORMAT, content_digest
from dssm_assets.storage.layout import BUNDLE_MANIFEST, CURRENT, bundle_folder, pointer_path
from dssm_assets.storage.local_files import is_local

Made = TypeVar("Made")

_TRIES = 10


class BundleRoot:
    """The folder or URL under which bundles lie, or a single bundle's own folder."""

    def __init__(self, root: str, options: Mapping[str, Any] | None = None) -> None:
        self.fs, path = fsspec.core.url_to_fs(root, **dict(options or {}))
        self.path = str(path).rstrip("/")
        self.is_local = is_local(self.fs)

    def current(self) -> str:
        """Returns the id of the bundle that is served now.

        Raises:
            PartitionMissingError: if none was ever published.
            StorageError: if the pointer cannot be read.
        """
        try:
            pointer = json.loads(self.fs.cat_file(pointer_path(self.path)))
            return str(pointer["bundle_id"])
        except FileNotFoundError as error:
            if self.fs.exists(f"{self.path}/{BUNDLE_MANIFEST}"):
                return id_of(json.loads(self.fs.cat_file(f"{self.path}/{BUNDLE_MANIFEST}")))
            fault = Fault(
                f"serving root {self.path}", f"a file {CURRENT}", "none", "materialize serving_bundle, or correct the path"
            )
            raise PartitionMissingError(fault) from error
        except (ValueError, KeyError, TypeError) as error:
            raise StorageError(f"{self.path}/{CURRENT}: not a pointer to a bundle ({error}); publish again") from error

    def of_current(self, make: Callable[[str], Made], bundle_id: str | None = None) -> Made:
        """Returns what is made of the current bundle, or of a named one.

        A bundle that is cleared away while it is read, because newer ones were published, gives way to the current one.

        Raises:
            StorageError: if a file is missing, or what `make` raises.
        """
        wanted = bundle_id or self.current()
        for _ in range(_TRIES):
            try:
                return make(wanted)
            except (FileNotFoundError, StorageError) as error:
                now = bundle_id or self.current()
                if now == wanted or self.fs.exists(f"{self.folder(wanted)}/{BUNDLE_MANIFEST}"):
                    if isinstance(error, StorageError):
                        raise
                    raise StorageError(f"bundle {wanted}: a file is missing ({error}); publish it again") from error
                wanted = now
        raise StorageError(f"serving root {self.path}: bundles change faster than they can be opened")

    def folder(self, bundle_id: str) -> str:
        """Returns where a bundle's files lie, inside the filesystem."""
        return self.path if self.fs.exists(f"{self.path}/{BUNDLE_MANIFEST}") else bundle_folder(self.path, bundle_id)


def id_of(manifest: Mapping[str, Any]) -> str:
    """Returns the id that a manifest gives its bundle, whatever its folder is called."""
    return f"{manifest['ds']}-{content_digest(manifest)[:12]}"


_CHUNK_BYTES = 1 << 20


class Bundle:
    """A whole bundle, read-only."""

    def __init__(self, bundle_id: str, manifest: Mapping[str, Any], files: _Files) -> None:
        """Opens the files; `Bundle.open` is the way to get one."""
        import faiss

        self.bundle_id, self.manifest, self._files = bundle_id, manifest, files
        self.name, self.ds = str(manifest["name"]), str(manifest["ds"])
        self.dims, self.interests = int(manifest["dims"]), int(manifest.get("interests", 1))
        self.has_prior = bool(manifest.get("has_prior", False))
        item_ids, item_vectors = files.table(BundleFile.ITEM_IDS), files.table(BundleFile.ITEM_VECTORS)
        users, popular = files.table(BundleFile.USER_VECTORS), files.table(BundleFile.POPULAR_ITEMS)
        self.items = IdRows(item_ids.column(col.ITEM_ID), f"bundle {bundle_id}, item_ids")
        self.item_vectors = VectorRows(item_vectors.column(col.ITEM_TOWER_EMB), f"bundle {bundle_id}, item_vectors")
        self.users = IdRows(users.column(col.USER_ID), f"bundle {bundle_id}, user_vectors")
        self.user_vectors = VectorRows(users.column(col.USER_TOWER_EMB), f"bundle {bundle_id}, user_vectors")
        self.popular_ids: list[Any] = popular.column(col.ITEM_ID).to_pylist()
        self.popular_counts: list[float] = popular.column(col.COUNT).to_pylist()
        self.index = faiss.read_index(str(files.path(BundleFile.ITEM_INDEX)))
        self._check(item_vectors)

    @classmethod
    def open(
        cls,
        root: str | BundleRoot,
        options: Mapping[str, Any] | None = None,
        *,
        bundle_id: str | None = None,
        is_verified: bool = True,
    ) -> Bundle:
        """Returns a bundle, by default the current one.

        Args:
            root: `<storage.root>/serving`, a folder or any fsspec URL, or the folder of one bundle.
            options: of the fsspec filesystem.
            bundle_id: another bundle than the current one.
            is_verified: compare the sha256 of the manifest and of every file, not only sizes.

        Raises:
            PartitionMissingError: if there is no bundle.
            StorageError: if a file is missing, differs from the manifest or cannot be read.
        """
        place = root if isinstance(root, BundleRoot) else BundleRoot(root, options)
        return place.of_current(lambda wanted: cls.load(place, wanted, is_verified), bundle_id)

    @classmethod
    def load(cls, place: BundleRoot, bundle_id: str, is_verified: bool) -> Bundle:
        """Returns the bundle of that id.

        Raises:
            FileNotFoundError: if it is not there, or no longer.
            StorageError: as `open`.
        """
        folder = place.folder(bundle_id)
        manifest = _manifest(place.fs.cat_file(f"{folder}/{BUNDLE_MANIFEST}"), bundle_id)
        if is_verified and id_of(manifest) != bundle_id:
            raise StorageError(f"bundle {bundle_id}: {BUNDLE_MANIFEST} is that of {id_of(manifest)}; publish it again")
        files = _Files(place, folder, manifest)
        files.check(bundle_id, is_verified)
        try:
            return cls(bundle_id, manifest, files)
        except (pa.ArrowInvalid, RuntimeError, KeyError, ValueError, InputError) as error:
            raise StorageError(f"bundle {bundle_id}: a file cannot be read: {error}") from error

    def path(self, name: str) -> Path:
        """Returns the local path of a file of the bundle.

        Raises:
            StorageError: if the bundle has no such file.
        """
        return self._files.path(name)

    def read_beside(self, name: str) -> bytes:
        """Returns the content of a file that fg.json names, by its path relative to it."""
        return self._files.path(name).read_bytes()

    def read_json(self, name: str) -> Any:
        """Returns the parsed content of a JSON file of the bundle."""
        return json.loads(self._files.path(name).read_bytes())

    def read_parquet(self, name: str) -> pa.Table:
        """Returns a parquet file of the bundle."""
        return pq.read_table(self._files.path(name), partitioning=None)

    def _check(self, item_vectors: pa.Table) -> None:
        """Checks that the files fit each other.

        Raises:
            StorageError: naming every pair of numbers that differ.
        """
        each, rest = divmod(self.user_vectors.dims, self.interests)
        of_users = (self.user_vectors.dims if rest else each) if len(self.users) else self.dims
        expected = {
            "items": (int(self.manifest["items"]), len(self.items), len(self.item_vectors), self.index.ntotal),
            "users": (int(self.manifest["users"]), len(self.users), len(self.user_vectors)),
            "dims": (self.dims, self.item_vectors.dims, of_users, self.index.d),
        }
        wrong = [f"{name} {numbers}" for name, numbers in expected.items() if len(set(numbers)) > 1]
        if not wrong and not self.items.is_in_order(item_vectors.column(col.ITEM_ID)):
            wrong = ["item_ids and item_vectors name other items"]
        if wrong:
            raise StorageError(
                f"bundle {self.bundle_id}: files that do not fit each other: {'; '.join(wrong)}; publish it again"
            )


class _Files:
    """The files of a bundle on the local disk: where they lie, or fetched to a folder that lives as long as this."""

    def __init__(self, place: BundleRoot, folder: str, manifest: Mapping[str, Any]) -> None:
        self._listed: Mapping[str, Any] = manifest["files"]
        self._fetched = None if place.is_local else tempfile.TemporaryDirectory(prefix="dssm-bundle-")
        self._folder = Path(folder if self._fetched is None else self._fetched.name)
        if self._fetched is not None:
            for name in self._listed:
                target = self._folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                place.fs.get_file(f"{folder}/{name}", str(target))

    def path(self, name: str) -> Path:
        if name not in self._listed:
            raise StorageError(f"bundle in {self._folder}: no file {name!r}, it has: {', '.join(sorted(self._listed))}")
        return self._folder / name

    def table(self, name: str) -> pa.Table:
        with pa.memory_map(str(self.path(name)), "rb") as source:
            return pa.ipc.open_file(source).read_all()

    def check(self, bundle_id: str, is_verified: bool) -> None:
        wrong = []
        for name, entry in sorted(self._listed.items()):
            path = self._folder / name
            if path.stat().st_size != int(entry["bytes"]):
                wrong.append(f"{name} has {path.stat().st_size} bytes instead of {entry['bytes']}")
            elif is_verified and _sha256(path) != entry["sha256"]:
                wrong.append(f"{name} has another sha256")
        if wrong:
            raise StorageError(f"bundle {bundle_id}: files differ from the manifest: {'; '.join(wrong)}; publish it again")


def _manifest(content: bytes, bundle_id: str) -> Mapping[str, Any]:
    try:
        manifest = json.loads(content)
        lacking = [key for key in ("name", "ds", "dims", "items", "users", "files") if key not in manifest]
        written = manifest.get("format")
        is_safe = all(not name.startswith("/") and ".." not in name.split("/") for name in manifest.get("files", {}))
    except (ValueError, AttributeError, TypeError) as error:
        raise StorageError(f"bundle {bundle_id}: {BUNDLE_MANIFEST} cannot be read ({error}); publish it again") from error
    if written != FORMAT:
        raise StorageError(f"bundle {bundle_id}: format {written!r}, this version reads {FORMAT}; publish it again")
    if lacking or not is_safe:
        got = f"lacks {', '.join(lacking)}" if lacking else "names files outside of the bundle"
        raise StorageError(f"bundle {bundle_id}: {BUNDLE_MANIFEST} {got}; publish it again")
    return dict(manifest)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while chunk := handle.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
