"""Local files that are there whole or not at all, also after a power cut.

Belongs here: writing one aside and renaming it. Does not belong here: object stores, whose puts are whole anyway, and what
the files say.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path


def write_whole(path: Path, chunks: Iterable[bytes]) -> None:
    """Writes a file, or leaves the one that stood there; its folder is made where it is missing.

    Several writers of one file do not disturb each other: the last one's is what stands.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f"._{path.stem}-")
    aside = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(handle, 0o644)  # mkstemp's files are readable by their owner alone
            file.writelines(chunks)
            file.flush()
            os.fsync(handle)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
