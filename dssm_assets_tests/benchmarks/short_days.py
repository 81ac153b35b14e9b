"""The cost of a short day: CPU time of all daily tables over days with few rows, made in one run, for each day and table.

    python -m dssm_assets_tests.benchmarks.short_days --days 30

The days before them are made first, so that rolling states have a day before, and imports and compiled queries do not count.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dssm_assets.definitions import scene_definitions
from dssm_assets.defs.asset_factory import Observer
from dssm_assets.defs.runs import open_instance, run_days
from dssm_assets.defs.scene import Scene
from dssm_assets_tests import worlds
from dssm_assets_tests.benchmarks.daily_chain import markdown_table
from dssm_assets_tests.benchmarks.process_cost import cpu_seconds
from dssm_assets_tests.benchmarks.world import World, write_world
from dssm_assets_tests.benchmarks.world_features import load_world


class CpuObserver(Observer):
    """Adds up the CPU seconds between the partitions of assets."""

    def __init__(self) -> None:
        self.cpu_s: dict[str, float] = {}
        self._last = cpu_seconds()

    def on_partition(self, name: str, ds: str) -> None:
        """Counts the time since the partition before, its events included."""
        now = cpu_seconds()
        self.cpu_s[name], self._last = self.cpu_s.get(name, 0.0) + now - self._last, now


def measure(world: World, history: int, folder: Path) -> dict[str, Any]:
    """Returns CPU seconds of the run over the days after `history` days, and of each table, in a home on disk."""
    write_world(world, folder)
    days = [world.day_before_log, *world.log_days]
    loaded = load_world(world, folder, history - 1)
    observer = CpuObserver()
    defs = scene_definitions(Scene(loaded), observer)
    with open_instance(folder / "home") as instance:
        run_days(defs, instance, worlds.DAILY, days[:history])
        before = cpu_seconds()
        run_days(defs, instance, worlds.DAILY, days[history:])
        return {"days": len(days) - history, "cpu_s": cpu_seconds() - before, "tables": observer.cpu_s}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m dssm_assets_tests.benchmarks.short_days", description="The cost of a short day."
    )
    for name, default in (("days", 30), ("history", 32), ("rows-per-day", 2_000), ("users", 5_000), ("items", 2_000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args(arguments)
    count = given.history - 1 + given.days
    with tempfile.TemporaryDirectory() as folder:
        found = measure(World(given.rows_per_day * count, given.users, given.items, count), given.history, Path(folder))
    rows = [(name, f"{1000 * cpu_s / found['days']:.1f}") for name, cpu_s in found["tables"].items()]
    rows.append(("all, with the run", f"{1000 * found['cpu_s'] / found['days']:.1f}"))
    sys.stdout.write(markdown_table(("table", "CPU ms a day"), rows) + "\n")


if __name__ == "__main__":
    main()
