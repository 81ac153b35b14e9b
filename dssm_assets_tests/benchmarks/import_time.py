"""Measures loading the code location as a multiple of importing Dagster alone.

    python -m dssm_assets_tests.benchmarks.import_time

Every run worker, schedule tick and code server pays for it. Other work on the machine slows both down alike, so the result is
the ratio of the fastest of several alternating processes.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass

LOCATION, ALONE = "from dssm_assets.definitions import defs; defs()", "import dagster"
_TIMED = "import time; begun = time.process_time(); {what}; print(time.process_time() - begun)"


@dataclass(frozen=True)
class ImportTime:
    """CPU seconds of the fastest import of each kind."""

    location_s: float
    dagster_s: float

    @property
    def ratio(self) -> float:
        """The import time of the code location / that of Dagster."""
        return self.location_s / self.dagster_s


def measure(rounds: int) -> ImportTime:
    """Returns the fastest import of each kind, each in a process of its own."""
    seconds: dict[str, list[float]] = {LOCATION: [], ALONE: []}
    for _ in range(rounds):
        for what, found in seconds.items():
            found.append(float(run(_TIMED.format(what=what))))
    return ImportTime(min(seconds[LOCATION]), min(seconds[ALONE]))


def run(code: str) -> str:
    """Returns what a program prints in a process of its own, with the packaged configuration."""
    hidden = {"DSSM_CONFIG", "DSSM_HOME", "DAGSTER_HOME"}
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment).stdout


if __name__ == "__main__":
    found = measure(rounds=7)
    print(f"{ALONE}: {found.dagster_s:.2f} s; {LOCATION}: {found.location_s:.2f} s; ratio {found.ratio:.2f}")
