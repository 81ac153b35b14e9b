"""Files of a remote store on the local disk, by content, so that they can be memory-mapped; the oldest go when it is full.

Belongs here: fetching once, also when several processes want the same file, and making room. Does not belong here: which
file belongs to what (`artifact_store.py`).
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

LIMIT_BYTES: Final = 20 << 30
IN_USE_SECONDS: Final = 3600
"""A file that was asked for so recently stays: somebody may be about to open it. What is mapped outlives its name anyway."""


class LocalCache:
    """A folder of fetched files, bounded in size."""

    def __init__(self, folder: Path, limit_bytes: int = LIMIT_BYTES) -> None:
        self.folder = folder
        self.limit_bytes = limit_bytes

    def get(self, name: str, fetch: Callable[[str], None]) -> Path:
        """Returns the local path of a file; `fetch` is called with the path to write it to, where it is not there yet.

        Args:
            name: path inside the cache; it carries the content, so equal names are equal files.
            fetch: writes the file.
        """
        path = self.folder / name
        with contextlib.suppress(FileNotFoundError):
            os.utime(path)
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, aside = tempfile.mkstemp(dir=path.parent, suffix=".part")
        os.close(handle)
        try:
            fetch(aside)
            Path(aside).replace(path)
        finally:
            Path(aside).unlink(missing_ok=True)
        self._make_room()
        return path

    def _make_room(self) -> None:
        """Removes the files that were asked for longest ago, until the rest fits."""
        found = []
        for path in self.folder.rglob("*"):
            with contextlib.suppress(FileNotFoundError):
                if path.is_file():
                    stat = path.stat()
                    found.append((stat.st_mtime, stat.st_size, path))
        surplus = sum(size for _, size, _ in found) - self.limit_bytes
        for used, size, path in sorted(found):
            if surplus <= 0 or used > time.time() - IN_USE_SECONDS:
                return
            path.unlink(missing_ok=True)
            surplus -= size
