"""Faults of the processes that share a fit: each leaves its own beside the job, and the run tells the one that began it.

When one process fails, the others lose their connection to it and fail as well, often sooner than it has left its words.

Belongs here: keeping a fault, choosing among them. Does not belong here: starting the processes (`fit_process`).
"""

from __future__ import annotations

import json
import traceback
from pathlib import Path
from typing import Any

from dssm_assets.core.errors import DssmError
from dssm_assets.storage.whole_file import write_whole


def keep_fault(folder: Path, rank: int, error: BaseException) -> None:
    """Leaves what a process failed of in a folder, under its rank."""
    fault = {
        "is_typed": isinstance(error, DssmError),
        "is_connection": _is_connection(error),
        "words": "".join(traceback.format_exception(error)),
    }
    write_whole(_path(folder, rank), [json.dumps(fault).encode()])  # the others' faults may end this process meanwhile


def told_fault(folder: Path) -> str | None:
    """Returns the earliest typed error, else the earliest that is no lost connection, with its rank; None if there is none."""
    by_time = sorted(folder.glob(_path(Path(), "*").name), key=lambda path: (path.stat().st_mtime_ns, path.name))
    faults: list[tuple[str, dict[str, Any]]] = [(path.stem, json.loads(path.read_text())) for path in by_time]
    causes = [found for found in faults if not found[1]["is_connection"]]
    if not causes:
        return None
    name, fault = min(causes, key=lambda found: not found[1]["is_typed"])  # the first of them by time
    return f"process {int(name.rpartition('-')[2])}:\n{fault['words']}"


def _path(folder: Path, rank: int | str) -> Path:
    return folder / f"fault-{rank}.json"


def _is_connection(error: BaseException) -> bool:
    """Tells whether a process failed because it could not reach another; gloo's errors have no class of their own."""
    from torch.distributed import DistError

    return isinstance(error, ConnectionError | DistError) or (type(error) is RuntimeError and "gloo" in str(error))
