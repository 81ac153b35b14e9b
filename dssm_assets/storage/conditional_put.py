"""Replacing a small file of an object store only if nobody else has replaced it since it was read.

Belongs here: the condition and what an object store answers to it. Does not belong here: what the files say
(`partitions.py`, `bundles.py`); local files, whose writers exclude each other by a lock (`local_files.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_CONFLICTS: Final = frozenset({"PreconditionFailed", "ConditionalRequestConflict"})
"""Error codes of S3 for a put whose condition no longer holds."""


def has_conditional_puts(fs: Any) -> bool:
    """Returns whether an fsspec filesystem supports them: S3 does."""
    return "s3" in (fs.protocol if isinstance(fs.protocol, tuple) else (fs.protocol,))


def unchanged_condition(fs: Any, path: str) -> dict[str, str]:
    """Returns the condition that holds while a file is as it is now; empty without support.

    Ask for it before reading the file, so that a change in between makes the condition fail.
    """
    if not has_conditional_puts(fs):
        return {}
    try:
        return {"IfMatch": str(fs.info(path, refresh=True)["ETag"])}
    except FileNotFoundError:
        return absent_condition(fs)


def absent_condition(fs: Any) -> dict[str, str]:
    """Returns the condition that holds while a file does not exist; empty without support."""
    return {"IfNoneMatch": "*"} if has_conditional_puts(fs) else {}


def put_if(fs: Any, path: str, content: bytes, condition: Mapping[str, str]) -> bool:
    """Replaces a file; returns False, and leaves it unchanged, if the condition no longer holds.

    A file that has this very content by now counts as replaced: a put whose answer was lost is repeated, and meets itself.
    """
    try:
        fs.pipe_file(path, content, **condition)
    except OSError as error:
        response = getattr(error.__cause__, "response", None) or {}
        if condition and response.get("Error", {}).get("Code") in _CONFLICTS:
            return _has_content(fs, path, content)
        raise
    return True


def _has_content(fs: Any, path: str, content: bytes) -> bool:
    try:
        return bool(fs.cat_file(path) == content)
    except FileNotFoundError:
        return False
