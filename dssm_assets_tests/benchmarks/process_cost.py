"""Runs a function in a fresh process, under a memory limit if asked, and measures CPU seconds and memory.

The limit is RLIMIT_DATA, which the kernel enforces on the private writable memory of a process, touched or not: heap, thread
stacks, reserves of allocators. It is an upper bound of resident anonymous memory. Files that are mapped for reading do not count,
because the kernel can drop their pages at any time; the library reads its large tables in this way. A process that stays under the
limit here stays under a cgroup of the same size (`docker run --memory`, a pod's limit), which drops cached files before anything fails.

Arrow's default allocator reserves whole gibibytes at once, so a limited process uses malloc with few arenas.
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
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

_ALLOCATION: Final = {
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "MALLOC_ARENA_MAX": "2",
    "OMP_WAIT_POLICY": "PASSIVE",
    "OPENBLAS_THREAD_TIMEOUT": "4",
}
_SECONDS: Final = 0.01
_LAST_CHARACTERS: Final = 3_000


@dataclass(frozen=True)
class Limited:
    """The result of a limited process and its peak memory, sampled every 10 ms: as the limit counts it, and resident anonymous."""

    result: Any
    counted_mib: float
    resident_mib: float


def cpu_seconds() -> float:
    """Returns the user and system time of this process and of its children that have ended."""
    spent = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in spent)


def run_apart(work: Callable[..., Any], /, **arguments: Any) -> Any:
    """Returns the result of a module's function in a fresh process, on one thread; arguments and result are passed as JSON."""
    return _run(work, 0, {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}, arguments).result


def run_limited(work: Callable[..., Any], limit_mib: int | None, /, **arguments: Any) -> Limited:
    """Runs a module's function in a fresh process under a memory limit, None for no limit; arguments and result are passed as JSON.

    Raises:
        MemoryError: the process failed, usually but not always for lack of memory. The message ends with its stderr.
    """
    return _run(work, limit_mib or 0, _ALLOCATION, arguments)


def _run(work: Callable[..., Any], limit_mib: int, variables: Mapping[str, str], arguments: dict[str, Any]) -> Limited:
    spec = sys.modules[work.__module__].__spec__
    assert spec is not None  # also of the module that is run: its functions say __main__
    command = [sys.executable, "-m", __name__, str(limit_mib), spec.name, work.__qualname__, json.dumps(arguments)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **variables}
    counted = resident = 0.0
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        with subprocess.Popen(command, stdout=out, stderr=err, text=True, env=environment) as running:
            while running.poll() is None:
                with contextlib.suppress(OSError, ValueError):
                    now = _memory_of(running.pid)
                    counted, resident = max(counted, now[0]), max(resident, now[1])
                time.sleep(_SECONDS)
        out.seek(0)
        err.seek(0)
        if running.returncode:
            error = err.read()[-_LAST_CHARACTERS:]
            raise MemoryError(
                f"{spec.name}.{work.__qualname__} ended with {running.returncode} under {limit_mib or 'no'} MiB:\n{error}"
            )
        return Limited(json.loads(out.read().splitlines()[-1]), counted, resident)


def _memory_of(pid: int) -> tuple[float, float]:
    lines = (line.split() for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    found = {words[0].rstrip(":"): int(words[1]) / 1024 for words in lines if words[0] in ("VmData:", "RssAnon:")}
    return found.get("VmData", 0.0), found.get("RssAnon", 0.0)


def _main() -> None:
    limit_mib, module, name, arguments = sys.argv[1:]
    if size := int(limit_mib) * 2**20:
        resource.setrlimit(resource.RLIMIT_DATA, (size, size))
    result = getattr(importlib.import_module(module), name)(**json.loads(arguments))
    sys.stdout.write(f"\n{json.dumps(result)}\n")


if __name__ == "__main__":
    _main()
