"""Artifacts: partitions that are not tables, such as a model or a folder of memory-mapped Arrow files.

Belongs here: files by logical name in and out. Does not belong here: what the files mean.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import pyarrow as pa

from dssm_assets.core.errors import StorageError
from dssm_assets.storage.manifest import Column, Manifest
from dssm_assets.storage.partitions import PartitionStore

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


@dataclass(frozen=True)
class Stream:
    """An Arrow file that is written one batch at a time, so that it never has to fit into memory.

    Attributes:
        schema: of the file, and of every batch.
        batches: drawn and written one by one; none is kept, and each stays a batch of the file.
    """

    schema: pa.Schema
    batches: Iterable[pa.RecordBatch]


class ArtifactStore:
    """Files in a partition store, found by the logical name they were published under."""

    def __init__(self, partitions: PartitionStore, cache: Path) -> None:
        """Keeps files of a remote store in `cache`, by content, so that they can be memory-mapped."""
        self.partitions = partitions
        self.cache = cache

    def publish(
        self,
        asset: str,
        ds: str,
        files: Mapping[str, bytes | Path | pa.Table | Stream],
        *,
        row_file: str | None = None,
        columns: tuple[Column, ...] = (),
        inputs: Mapping[str, str] | None = None,
        facts: Mapping[str, object] | None = None,
    ) -> Manifest:
        """Writes bytes and Arrow tables (uncompressed IPC files) under their names; returns the manifest.

        A file that is given by its path is moved. A table becomes one batch of its file, whatever its chunks; a stream keeps its batches. The files are written in
        the order given, so a stream may depend on one before it. The rows of `row_file` are the artifact's rows; the
        other files accompany them. If a stream fails, nothing is visible.
        """
        with self.partitions.staging() as folder:
            staged = []
            for name, content in files.items():
                rows = _write(folder / name, content)
                staged.append((folder / name, rows if name == row_file else 0))
            return self.partitions.publish(asset=asset, ds=ds, staged=staged, columns=columns, inputs=inputs, facts=facts)

    def local_path(self, manifest: Manifest, name: str) -> Path:
        """Returns a local path of a file of the artifact, fetching it from a remote store on first use.

        Raises:
            StorageError: if the artifact has no file of that name.
        """
        for file in manifest.files:
            if file.name == name:
                stored = self.partitions.file_path(manifest, file)
                if self.partitions.is_local:
                    return Path(stored)
                name_in_cache = f"{manifest.asset}/{file.sha256}/{name}"
                return LocalCache(self.cache).get(name_in_cache, partial(self.partitions.fs.get_file, stored))
        held = ", ".join(file.name for file in manifest.files)
        raise StorageError(f"artifact {manifest.key} has no file '{name}', it has: {held}")

    def read_bytes(self, manifest: Manifest, name: str) -> bytes:
        """Returns the content of a file."""
        return self.local_path(manifest, name).read_bytes()

    def map_table(self, manifest: Manifest, name: str) -> pa.Table:
        """Returns an Arrow file as a table whose columns lie in a memory map."""
        with pa.memory_map(str(self.local_path(manifest, name)), "rb") as source:
            return pa.ipc.open_file(source).read_all()


def _write(path: Path, content: bytes | Path | pa.Table | Stream) -> int:
    """Writes a file; returns how many rows it has, 0 for bytes."""
    if isinstance(content, Path):
        shutil.move(content, path)
        return 0
    if isinstance(content, bytes):
        path.write_bytes(content)
        return 0
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, content.schema) as writer:
        if isinstance(content, pa.Table):
            writer.write_table(content.combine_chunks(), max_chunksize=1 << 62)
            return int(content.num_rows)
        rows = 0
        for batch in content.batches:
            writer.write_batch(batch)
            rows += batch.num_rows
            del batch  # else it would live on while the next one is made
        return rows
