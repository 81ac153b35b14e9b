"""Recognises a full or unwritable disk: by error numbers, SQLite's names, and texts of DuckDB and object stores."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from dssm_assets.core.errors import DiskFullError, DssmError, Fault, InputError

_FULL: Final = (errno.ENOSPC, errno.EDQUOT, "SQLITE_FULL", "SQLITE_IOERR")
_FULL_TEXTS: Final = (
    "no space left on device",
    "disk quota exceeded",
    "database or disk is full",
    "max_temp_directory_size",
    "xminiostoragefull",
    "insufficientstorage",
    "quotaexceeded",
)
_REFUSED: Final = (errno.EROFS, errno.EACCES, errno.EPERM, "SQLITE_CANTOPEN", "SQLITE_READONLY")
_REFUSED_TEXTS: Final = ("read-only file system", "readonly database")
_PLACES: Final = "storage.root, duckdb.scratch, --home or the variable TMPDIR"


def explain_disk_error(error: BaseException) -> InputError | None:
    """Returns a typed error if `error` was caused by a full or unwritable disk or store, else None."""
    got = " ".join(str(error).split())[:300] or type(error).__name__
    if cause := _find_cause(error, _FULL, _FULL_TEXTS):
        remedy = (
            f"free space (dssm-assets cleanup removes leftovers and replaced files) or use another disk ({_PLACES}), "
            "then run it again; everything published before is intact"
        )
        return DiskFullError(Fault(f"disk of {_name_place(cause)}", "room for the files of this run", got, remedy))
    cause = _find_cause(error, _REFUSED, _REFUSED_TEXTS)
    if cause and (cause.filename if isinstance(cause, PermissionError) else True):  # no file: a port or a process
        remedy = f"make its folder, let this user read and write there, or use another place ({_PLACES})"
        return InputError(Fault(_name_place(cause), "a place that can be used", got, remedy))
    return None


def _find_cause(error: BaseException, codes: tuple[object, ...], texts: tuple[str, ...]) -> Any:
    """Walks the causes of an error. Returns the first with one of these codes or texts."""
    seen: list[BaseException] = []  # causes may form a circle
    current: BaseException | None = error
    while current is not None and current not in seen:
        kind = "_".join(getattr(current, "sqlite_errorname", "").split("_")[:2])  # SQLITE_IOERR_WRITE is of SQLITE_IOERR
        if {getattr(current, "errno", None), kind} & {*codes}:
            return current
        if any(text in str(current).lower() for text in texts):
            return current
        seen.append(current)
        current = current.__cause__ or current.__context__
    return None


def _name_place(cause: Any) -> str:
    return str(getattr(cause, "filename", None) or "this run")


@contextmanager
def disk_errors() -> Iterator[None]:
    """Inside the block, replaces errors of a full or unwritable disk by typed errors. See `explain_disk_error`."""
    try:
        yield
    except Exception as error:
        explained = None if isinstance(error, DiskFullError) else explain_disk_error(error)
        if explained is None or (isinstance(error, DssmError) and not isinstance(explained, DiskFullError)):
            raise
        raise explained from error
