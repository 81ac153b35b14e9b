"""Temporary local folders that tell whether the process that made them still lives.

A folder is locked by the process that uses it. The system gives the lock back when the process ends, however that happens; so a
folder that can be locked is one that a killed process has left.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final

PREFIX: Final = "dssm-"
"""Of every folder made in a folder that others use too."""


class ScratchFolder:
    """An empty folder that is removed by `close`, at the end of a `with` block, or when the process ends."""

    def __init__(self, kind: str = "", parent: Path | None = None) -> None:
        """Makes a folder.

        Args:
            kind: what it is for, the beginning of its name.
            parent: an existing folder (default: the system's folder for temporary files, where `kind` is not empty).
        """
        self.path = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{kind}-" if kind else "", dir=parent))
        handle = os.open(self.path, os.O_RDONLY)
        with suppress(OSError):  # network filesystems do not lock folders: then its age alone counts
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._remove = weakref.finalize(self, _remove, self.path, handle, os.getpid())

    def close(self) -> None:
        """Removes the folder with all that is in it."""
        self._remove()

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _remove(path: Path, handle: int, pid: int) -> None:
    if os.getpid() == pid:  # a forked process ends earlier
        shutil.rmtree(path, ignore_errors=True)
        os.close(handle)


def find_abandoned(parent: Path, prefix: str, before: float) -> Iterator[Path]:
    """Yields the folders of ended processes whose files have not changed since a time.

    Args:
        parent: the folder to search; it may be missing.
        before: in unix seconds.
    """
    try:
        entries = sorted(parent.iterdir())
    except OSError:
        return
    for path in entries:
        with suppress(OSError):
            if path.name.startswith(prefix) and _is_own_folder(path) and _last_change(path) < before and not _is_locked(path):
                yield path


def _is_own_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink() and path.stat().st_uid == os.geteuid()


def _last_change(path: Path) -> float:
    return max(found.lstat().st_mtime for found in (path, *path.rglob("*")))


def _is_locked(path: Path) -> bool:
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(handle)
    return False
