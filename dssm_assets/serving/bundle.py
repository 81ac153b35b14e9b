"""Reading serving bundles: which one is current, and one bundle checked against its manifest, its tables memory-mapped.

Belongs here: reading the pointer, fetching a bundle from a remote store, checking it, opening its tables and its index. Does
not belong here: writing bundles (`storage/bundles.py`), recall from one (`recall_engine.py`).

A `Bundle` never changes. Replacing or removing its files does not affect it: the memory maps keep the old content.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from dssm_assets.core import columns as col
from dssm_assets.core.errors import Fault, InputError, PartitionMissingError, StorageError
from dssm_assets.core.file_names import BundleFile
from dssm_assets.core.retrieval.vectors import to_matrix
from dssm_assets.serving.id_rows import IdRows
from dssm_assets.storage.bundles import READABLE_FORMATS, bundle_id_of, download_bundle
from dssm_assets.storage.layout import BUNDLE_MANIFEST, CURRENT, bundle_folder, pointer_path
from dssm_assets.storage.local_files import ScratchFolder, is_local, map_arrow
from dssm_assets.storage.locations import location_errors, open_location
from dssm_assets.storage.partitions import file_sha256

Loaded = TypeVar("Loaded")

_TRIES = 10


class BundleRoot:
    """The folder or URL of all bundles, or the folder of a single bundle."""

    def __init__(self, root: str, options: Mapping[str, Any] | None = None) -> None:
        self.fs, path = open_location(root, "serving root", options)
        self.path = path.rstrip("/")
        self.is_local = is_local(self.fs)

    def current_id(self) -> str:
        """Returns the id of the bundle that is served.

        Raises:
            PartitionMissingError: no bundle was ever published.
            StorageError: the pointer cannot be read.
        """
        try:
            with location_errors(self.path, "serving root", may_be_missing=True):
                text = self.fs.cat_file(pointer_path(self.path))
            pointer = json.loads(text)
            return str(pointer["bundle_id"])
        except FileNotFoundError as error:
            if self.fs.exists(f"{self.path}/{BUNDLE_MANIFEST}"):
                return bundle_id_of(json.loads(self.fs.cat_file(f"{self.path}/{BUNDLE_MANIFEST}")))
            remedy = "run dssm-assets publish, which publishes the last evaluated day, or correct the path"
            raise PartitionMissingError(Fault(f"serving root {self.path}", f"a file {CURRENT}", "none", remedy)) from error
        except (ValueError, KeyError, TypeError) as error:
            message = f"{self.path}/{CURRENT}: not a pointer to a bundle ({error}). To fix: publish a bundle again"
            raise StorageError(message) from error

    def load_current(self, load: Callable[[str], Loaded], bundle_id: str | None = None) -> Loaded:
        """Returns the result of `load` for the current bundle, or for a given one.

        If the bundle is removed while it is read, because newer ones were published, the newer one is loaded instead.

        Raises:
            StorageError: a file is missing; and the errors of `load`.
        """
        wanted = bundle_id or self.current_id()
        for _ in range(_TRIES):
            try:
                return load(wanted)
            except (FileNotFoundError, StorageError) as error:
                now = bundle_id or self.current_id()
                if now == wanted or self.fs.exists(f"{self.folder(wanted)}/{BUNDLE_MANIFEST}"):
                    if isinstance(error, StorageError):
                        raise
                    message = f"bundle {wanted}: a file is missing ({error}). To fix: publish the bundle again"
                    raise StorageError(message) from error
                wanted = now
        raise StorageError(
            f"serving root {self.path}: bundles change faster than they can be opened. To fix: publish less often"
        )

    def folder(self, bundle_id: str) -> str:
        """Returns the folder of a bundle, as a path inside the filesystem."""
        return self.path if self.fs.exists(f"{self.path}/{BUNDLE_MANIFEST}") else bundle_folder(self.path, bundle_id)


class Bundle:
    """A bundle, read-only; its tables and index are mapped, so that several services on a machine have one copy in memory."""

    def __init__(self, bundle_id: str, manifest: Mapping[str, Any], folder: Path, scratch: ScratchFolder | None = None) -> None:
        """Opens the files in a local folder. Use `Bundle.open`.

        Args:
            scratch: the folder, if the files were downloaded; it lives as long as this object.
        """
        import faiss

        self.bundle_id, self.manifest, self._folder, self._scratch = bundle_id, manifest, folder, scratch
        self.name, self.ds = str(manifest["name"]), str(manifest["ds"])
        self.dims, self.interests = int(manifest["dims"]), int(manifest.get("interests", 1))
        self.has_prior = bool(manifest.get("has_prior", False))
        item_vectors, users = self.read_arrow(BundleFile.ITEM_VECTORS), self.read_arrow(BundleFile.USER_VECTORS)
        self.items = IdRows(self.read_arrow(BundleFile.ITEM_IDS).column(col.ITEM_ID), f"bundle {bundle_id}, item_ids")
        self.item_vectors = to_matrix(item_vectors.column(col.ITEM_TOWER_EMB), f"bundle {bundle_id}, item_vectors")
        self.users = IdRows(users.column(col.USER_ID), f"bundle {bundle_id}, user_vectors")
        self._user_vectors = users.column(col.USER_TOWER_EMB)
        popular = self.read_arrow(BundleFile.POPULAR_ITEMS)
        popular_rows = self.items.rows_of(popular.column(col.ITEM_ID))
        self.popular_counts = np.zeros(len(self.items), np.int64)
        self.popular_counts[popular_rows] = popular.column(col.COUNT).to_numpy()
        self.popular_rows = np.concatenate([popular_rows, np.flatnonzero(self.popular_counts == 0)])
        has_columns = self.has_file(BundleFile.ITEM_COLUMNS)
        self.item_columns = self.read_arrow(BundleFile.ITEM_COLUMNS) if has_columns else pa.table({})
        self.index = faiss.read_index(str(self.path(BundleFile.ITEM_INDEX)), faiss.IO_FLAG_MMAP_IFC)
        self._check_sizes(item_vectors)

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
            bundle_id: a bundle other than the current one.
            is_verified: compare the sha256 of the manifest and of every file, not only sizes.

        Raises:
            PartitionMissingError: there is no bundle.
            StorageError: a file is missing, differs from the manifest or cannot be read.
        """
        bundles = root if isinstance(root, BundleRoot) else BundleRoot(root, options)
        return bundles.load_current(lambda wanted: cls.load(bundles, wanted, is_verified), bundle_id)

    @classmethod
    def load(cls, root: BundleRoot, bundle_id: str, is_verified: bool) -> Bundle:
        """Returns the bundle with an id.

        Raises:
            FileNotFoundError: it does not exist, or no longer.
            StorageError: as `open`.
        """
        folder, scratch = root.folder(bundle_id), None
        manifest = _parse_manifest(root.fs.cat_file(f"{folder}/{BUNDLE_MANIFEST}"), bundle_id)
        if is_verified and bundle_id_of(manifest) != bundle_id:
            raise _broken(bundle_id, f"{BUNDLE_MANIFEST} belongs to bundle {bundle_id_of(manifest)}")
        local = Path(folder)
        if not root.is_local:
            scratch = ScratchFolder("bundle")
            local = scratch.path
            download_bundle(root.fs, folder, manifest["files"], local)
        _check_files(bundle_id, manifest["files"], local, is_verified)
        try:
            return cls(bundle_id, manifest, local, scratch)
        except (pa.ArrowInvalid, RuntimeError, KeyError, ValueError, InputError) as error:
            raise _broken(bundle_id, f"a file cannot be read ({error})") from error

    def user_vector(self, row: int) -> npt.NDArray[np.float32]:
        """Returns the stored vector of a user, float32 [D], or [V * D] for V interests."""
        vector: npt.NDArray[np.float32] = self._user_vectors[row].values.to_numpy()
        return vector

    def has_file(self, name: str) -> bool:
        """Returns whether the bundle has a file; older bundles lack files of later features."""
        return name in self.manifest["files"]

    def path(self, name: str) -> Path:
        """Returns the local path of a file of the bundle.

        Raises:
            StorageError: the bundle has no such file.
        """
        if not self.has_file(name):
            raise _broken(self.bundle_id, f"no file {name!r}, it has: {', '.join(sorted(self.manifest['files']))}")
        return self._folder / name

    def read_bytes(self, name: str) -> bytes:
        """Returns the content of a file."""
        return self.path(name).read_bytes()

    def read_json(self, name: str) -> Any:
        """Returns the parsed content of a JSON file."""
        return json.loads(self.read_bytes(name))

    def read_arrow(self, name: str) -> pa.Table:
        """Returns the table in an Arrow file, memory-mapped."""
        return map_arrow(self.path(name))

    def read_parquet(self, name: str) -> pa.Table:
        """Returns the table in a parquet file."""
        return pq.read_table(self.path(name), partitioning=None)

    def _check_sizes(self, item_vectors: pa.Table) -> None:
        """Checks that the files match each other.

        Raises:
            StorageError: naming every group of numbers that should be equal.
        """
        user_width = self._user_vectors.type.list_size if len(self.users) else self.interests * self.dims
        expected = {
            "items": (int(self.manifest["items"]), len(self.items), len(self.item_vectors), self.index.ntotal),
            "users": (int(self.manifest["users"]), len(self.users)),
            "item columns": (len(self.items), self.item_columns.num_rows) if self.item_columns.num_columns else (),
            "dims": (self.dims, self.item_vectors.shape[1], self.index.d),
            "numbers of a user": (self.interests * self.dims, user_width),
        }
        wrong = [f"{name} {numbers}" for name, numbers in expected.items() if len(set(numbers)) > 1]
        if not wrong and not self.items.is_same_column(item_vectors.column(col.ITEM_ID)):
            wrong = ["item_ids and item_vectors have different items"]
        if wrong:
            raise _broken(self.bundle_id, f"its files do not match each other: {'; '.join(wrong)}")


def _check_files(bundle_id: str, entries: Mapping[str, Any], folder: Path, is_verified: bool) -> None:
    wrong = []
    for name, entry in sorted(entries.items()):
        path = folder / name
        if path.stat().st_size != int(entry["bytes"]):
            wrong.append(f"{name} has {path.stat().st_size} bytes instead of {entry['bytes']}")
        elif is_verified and file_sha256(path) != entry["sha256"]:
            wrong.append(f"{name} has another sha256")
    if wrong:
        raise _broken(bundle_id, f"files differ from the manifest: {'; '.join(wrong)}")


def _parse_manifest(content: bytes, bundle_id: str) -> Mapping[str, Any]:
    try:
        manifest = json.loads(content)
        missing = [key for key in ("name", "ds", "dims", "items", "users", "files") if key not in manifest]
        written_format = manifest.get("format")
        is_safe = all(not name.startswith("/") and ".." not in name.split("/") for name in manifest.get("files", {}))
    except (ValueError, AttributeError, TypeError) as error:
        raise _broken(bundle_id, f"{BUNDLE_MANIFEST} cannot be read ({error})") from error
    if written_format not in READABLE_FORMATS:
        readable = ", ".join(map(str, READABLE_FORMATS))
        raise _broken(bundle_id, f"it has format {written_format!r}, this version reads {readable}")
    if missing or not is_safe:
        problem = f"lacks {', '.join(missing)}" if missing else "names files outside the bundle"
        raise _broken(bundle_id, f"{BUNDLE_MANIFEST} {problem}")
    return dict(manifest)


def _broken(bundle_id: str, problem: str) -> StorageError:
    return StorageError(f"bundle {bundle_id}: {problem}. To fix: publish the bundle again")
