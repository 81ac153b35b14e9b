"""Files on the local disk: temporary folders, locks, atomic replacement, Arrow IPC files, arrays mapped from files."""

from __future__ import annotations

import fcntl
import math
import os
import shutil
import stat
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dssm_assets.storage.layout import staging_folder

LOCK: Final = ".lock"
"""If a folder cannot be locked, this file in it is."""
MARK: Final = ".dssm-assets"
"""File that marks our folder of temporary folders. A folder of the same name without it is not ours."""


class ScratchFolder:
    """An empty folder, removed by `close`, at the end of a `with` block, or when the process ends.

    Its process holds a lock on it. The system releases the lock when the process ends, even if it is killed. So a folder that
    others can lock was left by a killed process.
    """

    def __init__(self, kind: str = "", parent: Path | None = None) -> None:
        """Makes a folder.

        With a `kind`, the folder is made inside our own folder in `parent` (default: the system's temporary folder).

        If our own folder's name is taken, the folder is made directly in `parent`. Nothing then removes it if this process is killed.
        """
        if kind:
            parent = Path(tempfile.gettempdir()) if parent is None else parent
            parent = find_own_folder(parent, makes=True) or parent
        self.path, handle = _make_locked(f"{kind}-" if kind else "", parent)
        self.close = weakref.finalize(self, _remove, self.path, handle, os.getpid())

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *_: object) -> None:
        self.close()


def _make_locked(prefix: str, parent: Path | None) -> tuple[Path, int]:
    """Makes a folder and locks it. Returns its path and the handle of the lock. Tries again if a cleanup removed the folder first."""
    while True:
        path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        with suppress(FileNotFoundError):
            handle = os.open(path, os.O_RDONLY)
            with suppress(OSError):  # network filesystems do not lock folders; a cleanup then goes by age
                fcntl.flock(handle, fcntl.LOCK_EX)  # waits while a cleanup looks at the folder
            if path.exists():
                return path, handle
            os.close(handle)


def _remove(path: Path, handle: int, pid: int) -> None:
    if os.getpid() == pid:  # not in a forked process, which may end earlier
        shutil.rmtree(path, ignore_errors=True)
        os.close(handle)


def find_own_folder(parent: Path, *, makes: bool = False) -> Path | None:
    """Returns the folder `dssm-assets-<uid>` for this user's temporary folders. None if it is missing or not ours.

    Others can write into the system's temporary folder and know the name. So the folder counts as ours only if it belongs to this
    user, has our mark and is no link. Each use renews the mark, because cleaners of temporary folders remove old files.

    Args:
        makes: make the folder if there is none, and mark it if it is empty.
    """
    path, user = parent / f"dssm-assets-{os.geteuid()}", os.geteuid()
    with suppress(OSError):  # an error such as a full disk is raised again by the caller's next folder
        if makes:
            with suppress(FileExistsError):
                path.mkdir(mode=0o700)
        found = path.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != user:
            return None
        if makes and ((path / MARK).is_file() or not any(path.iterdir())):
            (path / MARK).touch()
        return path if (path / MARK).is_file() else None
    return None


def remove_abandoned(kind: str) -> None:
    """Removes folders of a kind left by killed processes in the system's temporary folder, if folders can be locked there."""
    own = find_own_folder(Path(tempfile.gettempdir()))
    for path in find_abandoned(own, math.inf, kind, needs_lock=True) if own else ():
        shutil.rmtree(path, ignore_errors=True)


def find_abandoned(parent: Path, before: float, kind: str = "", *, needs_lock: bool = False) -> Iterator[Path]:
    """Locks and yields folders that ended processes left inside `parent`, one of our folders.

    Args:
        before: only folders unchanged since this time, in unix seconds.
        kind: only folders of this kind (see `ScratchFolder`); all kinds by default.
        needs_lock: skip folders that cannot be locked, as on network filesystems. Otherwise their age alone decides.
    """
    for path in sorted(parent.glob(f"{kind}-*" if kind else "*")):
        with suppress(OSError):
            if path.is_symlink() or not path.is_dir() or path.stat().st_uid != os.geteuid():
                continue
            handle = os.open(path, os.O_RDONLY)
            try:
                if (
                    _lock_now(handle, otherwise=not needs_lock)
                    and max(inside.lstat().st_mtime for inside in (path, *path.rglob("*"))) < before
                ):
                    yield path
            finally:
                os.close(handle)


def _lock_now(handle: int, *, otherwise: bool) -> bool:
    """Locks a folder. Returns False if another process has locked it, and `otherwise` if folders cannot be locked."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return otherwise
    return True


def is_local(fs: Any) -> bool:
    """Returns whether an fsspec filesystem is the local disk."""
    return "file" in (fs.protocol if isinstance(fs.protocol, tuple) else (fs.protocol,))


def local_staging(root: str, *, is_root_local: bool) -> ScratchFolder:
    """Returns a folder to stage files in. For a local root it is on the same disk, so that files are published by renaming."""
    if not is_root_local:
        return ScratchFolder("staging")
    parent = Path(staging_folder(root))
    parent.mkdir(parents=True, exist_ok=True)
    return ScratchFolder(parent=parent)


@contextmanager
def folder_lock(folder: Path | str) -> Iterator[None]:
    """Makes a folder and locks it against other threads and processes. The lock of a killed process is released."""
    os.makedirs(folder, exist_ok=True)  # noqa: PTH103
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError:  # network filesystems can only lock files
            os.close(handle)
            handle = os.open(Path(folder) / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def sync_folder(folder: Path) -> None:
    """Waits until a folder's file names are on the disk, so that a power cut does not undo a rename."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomic(path: Path | str, chunks: Iterable[bytes | memoryview]) -> None:
    """Replaces a file in one step, or leaves it unchanged on failure. Creates a missing folder.

    If several processes write at once, the last file remains.
    """
    folder, name = os.path.split(os.path.abspath(path))  # noqa: PTH100
    os.makedirs(folder, exist_ok=True)  # noqa: PTH103
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=f"._{name}-")
    try:
        os.fchmod(handle, 0o644)  # only the owner can read files of mkstemp
        with os.fdopen(handle, "wb") as file:
            file.writelines(chunks)
            file.flush()
            os.fsync(handle)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@contextmanager
def arrow_writer(path: Path, schema: pa.Schema) -> Iterator[Any]:
    """Yields a writer of record batches to an uncompressed Arrow IPC file."""
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        yield writer


def write_arrow(path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> int:
    """Writes an uncompressed Arrow IPC file, one batch in memory at a time. Returns the number of rows."""
    rows = 0
    with arrow_writer(path, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
            rows += batch.num_rows
            del batch  # frees its memory before the next batch is made
    return rows


def write_arrow_table(path: Path, table: pa.Table) -> int:
    """Writes a table as an Arrow IPC file with one batch. Returns the number of rows."""
    return write_arrow(path, table.schema, table.combine_chunks().to_batches())


def map_arrow(path: Path | str) -> pa.Table:
    """Returns the table in an Arrow IPC file, memory-mapped."""
    with pa.memory_map(str(path), "rb") as source:
        return pa.ipc.open_file(source).read_all()


def read_rows(table: pa.Table, rows: Iterable[int]) -> pa.Table:
    """Copies some rows of a memory-mapped table into one chunk. (`take` would copy the whole file.)"""
    return pa.concat_tables([table.slice(row, 1) for row in rows]).combine_chunks()


class ScratchArrays:
    """Allocates arrays in mapped files, so that the system can drop their pages when memory is short."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0

    def __call__(self, length: int, kind: Any) -> npt.NDArray[Any]:
        """Returns a writable array of zeros."""
        if not length:  # an empty file cannot be mapped
            return np.empty(0, kind)
        path = self._next()
        size = length * np.dtype(kind).itemsize
        with path.open("wb") as file:
            file.truncate(size)
            if hasattr(os, "posix_fallocate"):  # else a full disk would kill the process when it writes a page
                os.posix_fallocate(file.fileno(), 0, size)
        return np.memmap(path, dtype=kind, mode="r+", shape=(length,))

    def concat(self, parts: Iterable[npt.NDArray[Any]], kind: Any) -> npt.NDArray[Any]:
        """Joins some arrays to a read-only array. One part is in memory at a time."""
        path, length = self._next(), 0
        with path.open("wb") as file:
            for part in parts:
                file.write(np.ascontiguousarray(part, kind).data)
                length += len(part)
        return ScratchFile(path, np.dtype(kind).str, length).open()

    def _next(self) -> Path:
        self._count += 1
        return self._folder / f"array-{self._count}"


@dataclass(frozen=True)
class ScratchFile:
    """Names an array in a file, so that other processes of this machine can open it."""

    path: Path
    kind: str
    length: int

    @classmethod
    def from_array(cls, array: npt.NDArray[Any]) -> ScratchFile:
        """Returns the handle of an array of `ScratchArrays`; a slice from its begin will do."""
        if not len(array):
            return cls(Path(), array.dtype.str, 0)
        if not isinstance(array, np.memmap) or array.filename is None:
            raise TypeError(f"an array of ScratchArrays, got {type(array).__name__}")
        return cls(Path(array.filename), array.dtype.str, len(array))

    def open(self) -> npt.NDArray[Any]:
        if not self.length:
            return np.empty(0, self.kind)
        return np.memmap(self.path, dtype=self.kind, mode="r", shape=(self.length,))
