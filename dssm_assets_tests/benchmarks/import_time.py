"""Measures loading the code location as a multiple of importing Dagster alone.

    python -m dssm_assets_tests.benchmarks.import_time

Every run worker, schedule tick and code server pays for it. Other work on the machine slows both down alike, so the result is
the ratio of the fastest of several alternating processes.
"""

from __future__ import annotations

import os
import subprocess
import sys

LOCATION, ALONE = "from dssm_assets.definitions import defs; defs()", "import dagster"
_TIMED = "import time; begun = time.process_time(); {what}; print(time.process_time() - begun)"


def measure_ratio(rounds: int) -> float:
    """Returns the import time of the code location / that of Dagster, each the fastest of some processes, in CPU seconds."""
    seconds: dict[str, list[float]] = {LOCATION: [], ALONE: []}
    for _ in range(rounds):
        for what, found in seconds.items():
            found.append(float(run(_TIMED.format(what=what))))
    return min(seconds[LOCATION]) / min(seconds[ALONE])


def run(code: str) -> str:
    """Returns what a program prints in a process of its own, with the packaged configuration."""
    hidden = {"DSSM_CONFIG", "DSSM_HOME", "DAGSTER_HOME"}
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment).stdout


if __name__ == "__main__":
    print(f"{LOCATION} / {ALONE}: ratio {measure_ratio(rounds=7):.2f}")
