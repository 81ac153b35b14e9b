"""Artifacts: partitions that are not tables, such as a model or memory-mapped Arrow files."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import pyarrow as pa

from dssm_assets.core.errors import StorageError
from dssm_assets.storage.local_files import map_arrow, write_arrow, write_arrow_table
from dssm_assets.storage.manifest import Column, Manifest
from dssm_assets.storage.partitions import PartitionStore

LIMIT_BYTES: Final = 20 << 30
"""Size of the cache of fetched files."""
IN_USE_SECONDS: Final = 3600
"""A file used within this time is not removed: another process may be about to open it. Files already mapped outlive removal."""


def fetch_cached(cache: Path, name: str, fetch: Callable[[str], None]) -> Path:
    """Returns the local path of a file. If the folder `cache` lacks it, fetches it, and removes the files that were used longest ago.

    Args:
        name: path inside the cache. It contains the digest, so files with equal names are equal.
        fetch: called with the path to write the file to.
    """
    path = cache / name
    with contextlib.suppress(FileNotFoundError):
        os.utime(path)
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".part")
    os.close(handle)
    try:
        fetch(temporary)
        Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)
    _make_room(cache)
    return path


def _make_room(cache: Path) -> None:
    files = []
    for path in cache.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            if path.is_file():
                files.append((path.stat().st_mtime, path.stat().st_size, path))
    surplus = sum(size for _, size, _ in files) - LIMIT_BYTES
    for used, size, path in sorted(files):
        if surplus <= 0 or used > time.time() - IN_USE_SECONDS:
            return
        path.unlink(missing_ok=True)
        surplus -= size


@dataclass(frozen=True)
class Stream:
    """An Arrow file, written batch by batch: it need not fit into memory.

    Attributes:
        schema: schema of the file and of every batch.
        batches: read one at a time. They are joined to batches of JOINED_ROWS rows, because a look-up by row number visits
            every batch.
    """

    schema: pa.Schema
    batches: Iterable[pa.RecordBatch]


JOINED_ROWS: Final = 1 << 18


def _join_batches(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    pending: list[pa.RecordBatch] = []
    for batch in batches:
        pending.append(batch)
        del batch  # frees its memory before the next batch is made
        if sum(part.num_rows for part in pending) >= JOINED_ROWS:
            yield pa.concat_batches(pending)
            pending.clear()
    if pending:
        yield pa.concat_batches(pending)


class ArtifactStore:
    """Files in a partition store under logical names."""

    def __init__(self, partitions: PartitionStore, cache: Path) -> None:
        """Opens a store. The folder `cache` gets copies of a remote store's files, so that these can be memory-mapped."""
        self.partitions, self.cache = partitions, cache

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
        """Publishes bytes, local files, tables and streams under their names. Returns the manifest.

        Tables and streams become uncompressed Arrow IPC files: a table with one batch, a stream with its own batches. A local file
        is moved. Files are written in the given order, so a stream may depend on an earlier stream. The artifact has as many rows
        as `row_file`. If a stream fails, nothing is published.
        """
        with self.partitions.staging() as folder:
            rows = {name: _write(folder / name, content) for name, content in files.items()}
            staged = [(folder / name, count if name == row_file else 0) for name, count in rows.items()]
            return self.partitions.publish(asset=asset, ds=ds, staged=staged, columns=columns, inputs=inputs, facts=facts)

    def local_path(self, manifest: Manifest, name: str) -> Path:
        """Returns the local path of a file of the artifact. A remote store's file is fetched on first use.

        Raises:
            StorageError: the artifact has no such file.
            PartitionReplacedError: the file was removed because the partition was written again.
        """
        file = next((file for file in manifest.files if file.name == name), None)
        if file is None:
            names = ", ".join(file.name for file in manifest.files)
            raise StorageError(f"artifact {manifest.key} has no file '{name}', it has: {names}. To fix: materialize it again")
        stored = self.partitions.file_path(manifest, file)
        with self.partitions.reading([manifest]):
            if self.partitions.is_local:
                Path(stored).stat()
                return Path(stored)
            fetch = partial(self.partitions.fs.get_file, stored)
            return fetch_cached(self.cache, f"{manifest.asset}/{file.sha256}/{name}", fetch)

    def read_bytes(self, manifest: Manifest, name: str) -> bytes:
        return self.local_path(manifest, name).read_bytes()

    def map_table(self, manifest: Manifest, name: str) -> pa.Table:
        """Returns an Arrow file as a memory-mapped table."""
        return map_arrow(self.local_path(manifest, name))


def _write(path: Path, content: bytes | Path | pa.Table | Stream) -> int:
    if isinstance(content, Stream):
        return write_arrow(path, content.schema, _join_batches(content.batches))
    if isinstance(content, pa.Table):
        return write_arrow_table(path, content)
    if isinstance(content, Path):
        shutil.move(content, path)
    else:
        path.write_bytes(content)
    return 0
