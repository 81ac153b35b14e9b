"""Errors of a full disk, recognised whoever raises them: the system, Arrow, DuckDB, SQLite or an object store."""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from dssm_assets.core.errors import DiskFullError, Fault

_CODES: Final = (errno.ENOSPC, errno.EDQUOT)
_TEXTS: Final = (
    "no space left on device",
    "disk quota exceeded",
    "database or disk is full",
    "max_temp_directory_size",
    "xminiostoragefull",
    "insufficientstorage",
    "quotaexceeded",
)
_LITTLE_BYTES: Final = 64 << 20


def is_disk_full(error: BaseException) -> bool:
    """Returns whether an error, or one that it was raised from, says that a disk or an object store is full."""
    seen: list[BaseException] = []  # causes may form a circle
    current: BaseException | None = error
    while current is not None and current not in seen:
        if isinstance(current, OSError) and current.errno in _CODES:
            return True
        if any(known in str(current).lower() for known in _TEXTS):
            return True
        seen.append(current)
        current = current.__cause__ or current.__context__
    return False


def explain_full_disk(error: BaseException, folders: Iterable[Path]) -> DiskFullError:
    """Returns a typed error for one that `is_disk_full` recognised; it names the fullest of some folders' disks.

    Args:
        folders: where files were written, besides the folder for temporary files; they need not exist.
    """
    free = []
    for folder in (*folders, Path(tempfile.gettempdir())):
        with suppress(OSError):
            disk = shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists()))
            free.append((disk.free, folder))
    short = [pair for pair in sorted(free) if pair[0] < _LITTLE_BYTES] or sorted(free)[:1]
    where = ", ".join(f"{folder} ({size / 1e6:.1f} MB free)" for size, folder in short)
    got = " ".join(str(error).split())[:300] or type(error).__name__
    remedy = (
        "free space (dssm-assets cleanup removes leftovers and replaced files) or use another disk "
        "(storage.root, duckdb.scratch, the variable TMPDIR), then run it again; what was published before is whole"
    )
    return DiskFullError(Fault(f"disk of {where}", "room for the files of this run", got, remedy))


@contextmanager
def disk_errors(folders: Iterable[Path]) -> Iterator[None]:
    """Turns the error of a full disk in a block into a DiskFullError."""
    try:
        yield
    except Exception as error:
        if isinstance(error, DiskFullError) or not is_disk_full(error):
            raise
        raise explain_full_disk(error, folders) from error
