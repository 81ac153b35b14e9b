"""Measures a block of work or a function in a fresh process: CPU seconds, wall seconds and peak memory.

Peak memory is the high-water mark of the process. On Linux it is reset before each block, so every block has its own. On
other systems it never falls, so a block shows the highest mark so far.

Belongs here: starting the process and reading its counters. Does not belong here: the work, tables of figures.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


@dataclass
class Cost:
    """The cost of a block of work: CPU time of the process and its ended children, wall time, peak memory.

    Attributes:
        name: the block.
        rows: number of rows that were processed, 0 if that is not meaningful.
        cpu_s: user and system time.
        wall_s: elapsed time.
        peak_mib: high-water mark of resident memory in MiB.
    """

    name: str
    rows: int = 0
    cpu_s: float = 0.0
    wall_s: float = 0.0
    peak_mib: float = 0.0


@contextmanager
def measured(name: str, rows: int = 0) -> Iterator[Cost]:
    """Yields a cost that is filled in when the block ends; `rows` may be set inside the block."""
    cost = Cost(name, rows)
    with contextlib.suppress(OSError):
        _CLEAR.write_text("5")
    cpu, wall = cpu_seconds(), time.perf_counter()
    yield cost
    cost.cpu_s, cost.wall_s = cpu_seconds() - cpu, time.perf_counter() - wall
    cost.peak_mib = _peak_mib()


def cpu_seconds() -> float:
    """Returns the user and system time of this process and of its children that have ended."""
    spent = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in spent)


def run_apart(work: Callable[..., Any], /, *, python: str = sys.executable, **arguments: Any) -> Any:
    """Returns the result of a module's function in a fresh process, on one thread; arguments and result are passed as JSON.

    Raises:
        RuntimeError: the process failed; the message has its stderr.
    """
    command = [python, "-m", __name__, work.__module__, work.__qualname__, json.dumps(arguments)]
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise RuntimeError(f"{work.__module__}.{work.__qualname__} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def _peak_mib() -> float:
    if _STATUS.exists():
        (line,) = (line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def _main() -> None:
    module, name, arguments = sys.argv[1:]
    result = getattr(importlib.import_module(module), name)(**json.loads(arguments))
    sys.stdout.write(f"\n{json.dumps(result)}\n")


if __name__ == "__main__":
    _main()
