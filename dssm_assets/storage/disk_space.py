"""Errors of a disk that is full or cannot be written, recognised whoever raises them: the system, Arrow, DuckDB, SQLite, an object store."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from dssm_assets.core.errors import DiskFullError, DssmError, Fault, InputError
from dssm_assets.storage.config_choice import choose_config
from dssm_assets.storage.config_file import load_config

_FULL_CODES: Final = (errno.ENOSPC, errno.EDQUOT)
_FULL_TEXTS: Final = (
    "no space left on device",
    "disk quota exceeded",
    "database or disk is full",
    "max_temp_directory_size",
    "xminiostoragefull",
    "insufficientstorage",
    "quotaexceeded",
)
_SQLITE_TEXTS: Final = ("disk i/o error", "unable to open database file")
"""What SQLite says of a full disk and of one that cannot be written, but of other things too."""
_REFUSED_CODES: Final = (errno.EROFS, errno.EACCES, errno.EPERM)
_REFUSED_TEXTS: Final = ("read-only file system", "readonly database")
_LITTLE_BYTES: Final = 64 << 20


def is_disk_full(error: BaseException) -> bool:
    """Returns whether an error, or one that it was raised from, says that a disk or an object store is full."""
    return _find_cause(error, _FULL_CODES, _FULL_TEXTS) is not None


def _find_cause(error: BaseException, codes: Collection[int], texts: Collection[str]) -> BaseException | None:
    """Returns the first of an error and those that it was raised from that has one of some codes, or says one of some texts."""
    seen: list[BaseException] = []  # causes may form a circle
    current: BaseException | None = error
    while current is not None and current not in seen:
        if isinstance(current, OSError) and current.errno in codes:
            return current
        if any(known in str(current).lower() for known in texts):
            return current
        seen.append(current)
        current = current.__cause__ or current.__context__
    return None


def explain_disk_error(error: BaseException, folders: Iterable[Path]) -> InputError | None:
    """Returns a typed error for one of a disk that is full or cannot be written, None for another one.

    Args:
        folders: where files were written, besides the folder for temporary files; they need not exist. The error names the first one on
            each disk that is full or cannot be written.
    """
    by_disk: dict[int, Path] = {}
    for folder in (*folders, Path(tempfile.gettempdir())):
        with suppress(OSError):
            existing = next(path for path in (folder, *folder.parents) if path.is_dir())
            by_disk.setdefault(existing.stat().st_dev, existing)
    free = sorted((shutil.disk_usage(folder).free, folder) for folder in by_disk.values())
    short = [pair for pair in free if pair[0] < _LITTLE_BYTES]
    locked = [str(folder) for folder in by_disk.values() if not os.access(folder, os.W_OK)]
    is_of_sqlite = _find_cause(error, (), _SQLITE_TEXTS) is not None
    got = " ".join(str(error).split())[:300] or type(error).__name__
    if is_disk_full(error) or (is_of_sqlite and short):
        where = ", ".join(f"{folder} ({size / 1e6:.1f} MB free)" for size, folder in short or free[:1])
        remedy = (
            "free space (dssm-assets cleanup removes leftovers and replaced files) or use another disk "
            "(storage.root, duckdb.scratch, the variable TMPDIR), then run it again; what was published before is whole"
        )
        return DiskFullError(Fault(f"disk of {where}", "room for the files of this run", got, remedy))
    refused = _find_cause(error, _REFUSED_CODES, _REFUSED_TEXTS)
    where = str(getattr(refused, "filename", None) or ", ".join(locked))
    if not where or (refused is None and not is_of_sqlite):
        return None
    remedy = (
        "let this user read and write there, or use another place (--home, storage.root, duckdb.scratch, the variable TMPDIR)"
    )
    return InputError(Fault(where, "a place that can be used", got, remedy))


def list_folders(arguments: Mapping[str, Any]) -> list[Path]:
    """Returns the local folders that a command with some arguments may write to: those that they name, and those of its configuration."""
    folders: list[Path] = []
    with suppress(DssmError, OSError):
        choice = choose_config(arguments.get("config"), arguments.get("home"))
        folders += [choice.home, choice.instance_home]
        for path in choice.paths:
            loaded = load_config(path, choice.home, checks_features=False)
            folders += [loaded.scratch, *([] if "://" in loaded.root else [Path(loaded.root)])]
    named = (Path(value) for value in arguments.values() if isinstance(value, str | Path) and "\0" not in str(value))
    return [folder.absolute() for folder in (*folders, *named)]


@contextmanager
def disk_errors(folders: Iterable[Path]) -> Iterator[None]:
    """Turns the error of a disk that is full or cannot be written, in a block, into a typed one; see `explain_disk_error`."""
    try:
        yield
    except Exception as error:
        is_explained = isinstance(error, DiskFullError) or (isinstance(error, DssmError) and not is_disk_full(error))
        if is_explained or (explained := explain_disk_error(error, folders)) is None:
            raise
        raise explained from error
