"""A read-only filesystem with known sizes of remote files: opening a file costs no request."""

from __future__ import annotations

import datetime as dt
import io
from collections.abc import Mapping
from typing import Any, Final

from fsspec import AbstractFileSystem
from fsspec.spec import AbstractBufferedFile

SMALL_BYTES: Final = 4 << 20
"""A file up to this size is fetched in one request."""
CACHED_BYTES: Final = 64 << 20
"""Total size of the cached whole files."""
_BLOCK_BYTES: Final = 8 << 20
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


class SizedFileSystem(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """A read-only filesystem of some stored files of known sizes."""

    protocol = "stored"
    cachable = False

    def __init__(self, fs: Any, sizes: Mapping[str, int]) -> None:
        """Serves files of the store's filesystem `fs`. `sizes`: path -> size in bytes."""
        super().__init__()
        self.fs = fs
        self.sizes = dict(sizes)
        self._cached: dict[str, bytes] = {}
        self._cached_bytes = 0

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        """Returns name, size and type of a file.

        Raises:
            FileNotFoundError: the path is none of the given files.
        """
        name = self._strip_protocol(path)
        if name not in self.sizes:
            raise FileNotFoundError(name)
        return {"name": name, "size": self.sizes[name], "type": "file"}

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:
        found = self.info(path)
        return [found] if detail else [found["name"]]

    def modified(self, path: str) -> dt.datetime:
        """Returns the same time for every file, because stored files never change."""
        return _EPOCH

    def content(self, path: str) -> bytes:
        """Returns the content of a file. If it fits into the cache, it is fetched only once."""
        if path in self._cached:
            return self._cached[path]
        found = bytes(self.fs.cat_file(path, start=0, end=self.sizes[path]))
        if self._cached_bytes + len(found) <= CACHED_BYTES:
            self._cached[path] = found
            self._cached_bytes += len(found)
        return found

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
        size = self.info(path)["size"]
        return io.BytesIO(self.content(path)) if size <= SMALL_BYTES else _RangedFile(self, path, size=size)


class _RangedFile(AbstractBufferedFile):  # type: ignore[misc]  # fsspec has no types
    def __init__(self, files: SizedFileSystem, path: str, size: int) -> None:
        super().__init__(files, path, "rb", block_size=_BLOCK_BYTES, cache_type="readahead", size=size)

    def _fetch_range(self, start: int, end: int) -> bytes:
        return bytes(self.fs.fs.cat_file(self.path, start=start, end=end))
