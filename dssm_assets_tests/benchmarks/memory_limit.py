"""Work under a limit on memory: a fresh process that cannot allocate more, and how much of it it used.

The limit is RLIMIT_DATA, which the kernel enforces on the private memory of a process: what it has asked for to write in,
heap, stacks of threads and reserves of allocators included, touched or not. So it bounds resident anonymous memory from
above. Files that are mapped to be read do not count: the kernel takes their pages back whenever it wants them, which is how
the library reads its large tables. (RLIMIT_AS would count them, and with them every shared library.) An allocation beyond
the limit fails in the process that made it, with an error of the library that asked.

A cgroup (`docker run --memory`, a pod's limit) counts pages instead: resident anonymous memory and files in the cache, the
latter given back before anything fails. What stays under the limit here stays under a cgroup of the same size.

Arrow's default allocator reserves whole gibibytes at once, so the process uses malloc instead, whose arenas are few.

Belongs here: the limit, the process and what was seen of it. Does not belong here: the work; costs (`process_cost.py`).
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

_ALLOCATION: Final = {"ARROW_DEFAULT_MEMORY_POOL": "system", "MALLOC_ARENA_MAX": "2", "OMP_WAIT_POLICY": "PASSIVE"}
_SECONDS: Final = 0.01
_LAST_CHARACTERS: Final = 3_000


@dataclass(frozen=True)
class Limited:
    """What a limited process returned and the most that it used at once, read from outside every 10 ms.

    Attributes:
        result: of the work.
        counted_mib: what the limit counts.
        resident_mib: resident memory that is its own, without mapped files.
    """

    result: Any
    counted_mib: float
    resident_mib: float


def run_limited(work: Callable[..., Any], limit_mib: int | None, /, **arguments: Any) -> Limited:
    """Returns what a module's function returns in a fresh process that may not use more than a limit.

    Args:
        work: a function of a module; arguments and result go through JSON.
        limit_mib: the limit in MiB, None for none.
        arguments: of the function.

    Raises:
        MemoryError: it failed; the message ends with what it wrote. (Most often for want of memory, but not always.)
    """
    command = [sys.executable, "-m", __name__, str(limit_mib or 0), work.__module__, work.__qualname__, json.dumps(arguments)]
    counted = resident = 0.0
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        with subprocess.Popen(command, stdout=out, stderr=err, text=True, env=os.environ | _ALLOCATION) as running:
            while running.poll() is None:
                with contextlib.suppress(OSError, ValueError):
                    now = _seen(running.pid)
                    counted, resident = max(counted, now[0]), max(resident, now[1])
                time.sleep(_SECONDS)
        out.seek(0)
        err.seek(0)
        if running.returncode:
            name = f"{work.__module__}.{work.__qualname__}"
            told = err.read()[-_LAST_CHARACTERS:]
            raise MemoryError(f"{name} ended with {running.returncode} under {limit_mib} MiB:\n{told}")
        return Limited(json.loads(out.read().splitlines()[-1]), counted, resident)


def _seen(pid: int) -> tuple[float, float]:
    lines = (line.split() for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    found = {words[0].rstrip(":"): int(words[1]) / 1024 for words in lines if words[0] in ("VmData:", "RssAnon:")}
    return found.get("VmData", 0.0), found.get("RssAnon", 0.0)


def _main() -> None:
    limit, module, name, arguments = sys.argv[1:]
    if int(limit):
        size = int(limit) * 2**20
        resource.setrlimit(resource.RLIMIT_DATA, (size, size))
    result = getattr(importlib.import_module(module), name)(**json.loads(arguments))
    sys.stdout.write(f"\n{json.dumps(result)}\n")


if __name__ == "__main__":
    _main()
