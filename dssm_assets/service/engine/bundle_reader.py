"""Opens a serving bundle: checks it against its manifest and memory-maps its tables.

Belongs here: opening the tables and the index of a bundle. Does not belong here: storing and fetching bundles
(`service/bundle/bundle_store.py`), recall (`recall_engine.py`).

A `Bundle` never changes. If its files are replaced or removed, the memory maps keep the old content.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from dssm_assets.core import columns as col
from dssm_assets.core.errors import InputError
from dssm_assets.core.file_names import BundleFile
from dssm_assets.core.retrieval.vectors import to_matrix
from dssm_assets.service.bundle.bundle_store import FetchedBundle, broken
from dssm_assets.service.engine.id_rows import IdRows
from dssm_assets.storage.local_files import map_arrow


class Bundle:
    """A read-only bundle. Its tables and index are memory-mapped, so services on one machine share one copy."""

    def __init__(self, fetched: FetchedBundle) -> None:
        """Opens the files. Raises a StorageError if a file is missing, unreadable, or does not match the others."""
        try:
            self._open(fetched)
        except (FileNotFoundError, pa.ArrowInvalid, RuntimeError, KeyError, ValueError, InputError) as error:
            raise broken(fetched.bundle_id, f"a file cannot be read ({error})") from error

    def _open(self, fetched: FetchedBundle) -> None:
        self._fetched, self.bundle_id, self.manifest = fetched, fetched.bundle_id, fetched.manifest
        self.name, self.ds, bundle_id = str(self.manifest["name"]), str(self.manifest["ds"]), self.bundle_id
        self.dims, self.interests = int(self.manifest["dims"]), int(self.manifest.get("interests", 1))
        self.has_prior = bool(self.manifest.get("has_prior", False))
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

    def user_vector(self, row: int) -> npt.NDArray[np.float32]:
        """Returns the stored vector of a user: float32 [D], or [V * D] for V interests."""
        vector: npt.NDArray[np.float32] = self._user_vectors[row].values.to_numpy()
        return vector

    def has_file(self, name: str) -> bool:
        """Returns whether the bundle has a file. Bundles of older versions lack some files."""
        return name in self.manifest["files"]

    def path(self, name: str) -> Path:
        """Returns the local path of a file of the bundle. Raises a StorageError if there is no such file."""
        if not self.has_file(name):
            raise broken(self.bundle_id, f"no file {name!r}, it has: {', '.join(sorted(self.manifest['files']))}")
        return self._fetched.folder / name

    def read_bytes(self, name: str) -> bytes:
        return self.path(name).read_bytes()

    def read_json(self, name: str) -> Any:
        return json.loads(self.read_bytes(name))

    def read_arrow(self, name: str) -> pa.Table:
        """Returns the table of an Arrow file, memory-mapped."""
        return map_arrow(self.path(name))

    def read_parquet(self, name: str) -> pa.Table:
        return pq.read_table(self.path(name), partitioning=None)

    def _check_sizes(self, item_vectors: pa.Table) -> None:
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
            raise broken(self.bundle_id, f"its files do not match each other: {'; '.join(wrong)}")
