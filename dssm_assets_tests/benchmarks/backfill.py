"""Compares a backfill of many dates with one run per date, from the daily tables to train_samples.

    python -m dssm_assets_tests.benchmarks.backfill --dates 30 --window 30

Both ways start from the same history. Each runs in a process of its own that has built one day before, so that imports do
not count:

    backfill    one run builds the daily tables of all dates, then one run per date builds its windowed tables
    singles     for each date, one run builds its daily tables and one its windowed tables

A backfill that rebuilt the days of every date's window would cost about as many times more as the window has days. Training
and its downstream assets are left out, because they cost the same either way.

Belongs here: the comparison and its table. Does not belong here: the two ways (`backfill_ways.py`), the world (`world.py`)
and measuring (`process_cost.py`).
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from dssm_assets_tests.benchmarks.backfill_ways import build_dates, build_history, measured_dates
from dssm_assets_tests.benchmarks.process_cost import run_apart
from dssm_assets_tests.benchmarks.world import World, write_world

MAX_RATIO: Final = 1.2
"""A backfill of windowed assets may cost at most this many times the single days."""
HISTORY, BACKFILL, SINGLES = "history", "backfill", "singles"
Run = Callable[..., Any]


@dataclass(frozen=True)
class Report:
    """The CPU seconds of each way, and how much it did.

    Attributes:
        dates: number of dates that were built.
        cpu_s: way -> work ("daily tables", "windowed tables") -> seconds.
        runs: way -> number of runs.
        built: way -> number of daily partitions that were built.
    """

    dates: int
    cpu_s: dict[str, dict[str, float]]
    runs: dict[str, int]
    built: dict[str, int]

    @property
    def ratio(self) -> float:
        """Returns the cost of the backfill / the cost of the single days, the larger of daily and windowed tables."""
        return max(self.cpu_s[BACKFILL][work] / self.cpu_s[SINGLES][work] for work in self.cpu_s[BACKFILL])


def measure(world: World, window: int, folder: Path, run: Run = run_apart) -> Report:
    """Measures both ways over the days of the world that have a whole window before them, without the first of them."""
    shared = {"world": asdict(world), "window": window}
    write_world(world, folder / HISTORY)
    run(build_history, **shared, folder=str(folder / HISTORY))
    found = {}
    for way in (BACKFILL, SINGLES):
        shutil.copytree(folder / HISTORY, folder / way)
        found[way] = run(build_dates, **shared, folder=str(folder / way), is_one_by_one=way == SINGLES)
    return Report(
        dates=len(measured_dates(world, window)),
        cpu_s={way: result["cpu_s"] for way, result in found.items()},
        runs={way: result["runs"] for way, result in found.items()},
        built={way: result["built"] for way, result in found.items()},
    )


def render(report: Report) -> str:
    """Returns the figures as a table."""
    lines = [f"{'':24}{'backfill':>12}{'single days':>14}{'ratio':>8}"]
    for work in report.cpu_s[BACKFILL]:
        lines.append(_row(f"{work}, CPU s", report.cpu_s[BACKFILL][work], report.cpu_s[SINGLES][work]))
    lines.append(_row("together, CPU s", *(sum(report.cpu_s[way].values()) for way in (BACKFILL, SINGLES))))
    for name, counts in (("runs", report.runs), ("daily partitions built", report.built)):
        lines.append(f"{name:24}{counts[BACKFILL]:>12,}{counts[SINGLES]:>14,}")
    verdict = "within" if report.ratio <= MAX_RATIO else "OVER"
    return "\n".join([*lines, f"{report.dates} dates: at most {report.ratio:.2f} times the single days, {verdict} {MAX_RATIO}"])


def _row(name: str, backfill: float, singles: float) -> str:
    return f"{name:24}{backfill:>12.1f}{singles:>14.1f}{backfill / singles:>8.2f}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description="Compares a backfill of many dates with one run per date.")
    for name, default in (("dates", 30), ("window", 30), ("rows", 120_000), ("users", 5_000), ("items", 2_000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args(arguments)
    world = World(given.rows, given.users, given.items, given.window + 1 + given.dates)
    with tempfile.TemporaryDirectory() as folder:
        report = measure(world, given.window, Path(folder))
    sys.stdout.write(f"{render(report)}\n")
    sys.exit(report.ratio > MAX_RATIO)


if __name__ == "__main__":
    main()
