"""Files of a remote store, read without asking for what the manifests say: their sizes.

DuckDB opens a parquet file several times and asks for its size and age each time, Arrow asks too; on an object store every
question is a round trip, dozens for each partition. What a manifest names never changes and its size is in the manifest, so a file costs
what is read of it and nothing else.

Belongs here: reading. Does not belong here: which files there are (`partition_store.py`).
"""

from __future__ import annotations

import datetime as dt
import io
from collections.abc import Mapping
from typing import Any, Final

from fsspec import AbstractFileSystem
from fsspec.spec import AbstractBufferedFile

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
