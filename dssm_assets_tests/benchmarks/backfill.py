"""What a backfill of many dates costs beside the same dates one by one, from the daily tables to train_samples.

    python -m dssm_assets_tests.benchmarks.backfill --dates 30 --window 30

Both ways start from the same history, each in a process of its own that has made one day before, so that imports are paid:

    backfill    the daily tables over all dates in one run, then one run per date over the windowed tables
    singles     for each date, one run over its daily tables and one over its windowed tables

A backfill that made the days of every date's window anew would cost about as many times as much as the window has days.
Training and what is behind it are left out: a date costs them whichever way it comes.

Belongs here: comparing the two and their figures. Does not belong here: the ways (`backfill_ways.py`), the world (`world.py`)
and the meter (`process_cost.py`).
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

from dssm_assets_tests.benchmarks.backfill_ways import dates_of, make_dates, make_history
from dssm_assets_tests.benchmarks.process_cost import run_apart
from dssm_assets_tests.benchmarks.world import World, write_world

MOST: Final = 1.2
"""A backfill of windowed assets costs at most so many times the single days."""
HISTORY, BACKFILL, SINGLES = "history", "backfill", "singles"
Run = Callable[..., Any]


@dataclass(frozen=True)
class Report:
    """What each way took, in CPU seconds, and how much it did.

    Attributes:
        dates: that were asked for.
        cpu_s: way -> work ("daily tables", "windowed tables") -> seconds.
        runs: way -> number of runs.
        made: way -> daily partitions that were made.
    """

    dates: int
    cpu_s: dict[str, dict[str, float]]
    runs: dict[str, int]
    made: dict[str, int]

    @property
    def ratio(self) -> float:
        """Returns how many times the single days a backfill costs, in that of the two works in which it costs most."""
        return max(self.cpu_s[BACKFILL][work] / self.cpu_s[SINGLES][work] for work in self.cpu_s[BACKFILL])


def measure(world: World, window: int, folder: Path, run: Run = run_apart) -> Report:
    """Returns what both ways take over the days of the world that have a whole window before them, the first left out."""
    shared = {"world": asdict(world), "window": window}
    write_world(world, folder / HISTORY)
    run(make_history, **shared, folder=str(folder / HISTORY))
    found = {}
    for way in (BACKFILL, SINGLES):
        shutil.copytree(folder / HISTORY, folder / way)
        found[way] = run(make_dates, **shared, folder=str(folder / way), is_one_by_one=way == SINGLES)
    return Report(
        dates=len(dates_of(world, window)),
        cpu_s={way: result["cpu_s"] for way, result in found.items()},
        runs={way: result["runs"] for way, result in found.items()},
        made={way: result["made"] for way, result in found.items()},
    )


def render(report: Report) -> str:
    """Returns the figures as a table."""
    lines = [f"{'':24}{'backfill':>12}{'single days':>14}{'ratio':>8}"]
    for work in report.cpu_s[BACKFILL]:
        lines.append(_row(f"{work}, CPU s", report.cpu_s[BACKFILL][work], report.cpu_s[SINGLES][work]))
    lines.append(_row("together, CPU s", *(sum(report.cpu_s[way].values()) for way in (BACKFILL, SINGLES))))
    for name, counts in (("runs", report.runs), ("daily partitions made", report.made)):
        lines.append(f"{name:24}{counts[BACKFILL]:>12,}{counts[SINGLES]:>14,}")
    verdict = "within" if report.ratio <= MOST else "OVER"
    return "\n".join([*lines, f"{report.dates} dates: at most {report.ratio:.2f} times the single days, {verdict} {MOST}"])


def _row(name: str, backfill: float, singles: float) -> str:
    return f"{name:24}{backfill:>12.1f}{singles:>14.1f}{backfill / singles:>8.2f}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description="What a backfill of many dates costs beside the same dates one by one.")
    for name, default in (("dates", 30), ("window", 30), ("rows", 120_000), ("users", 5_000), ("items", 2_000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args(arguments)
    world = World(given.rows, given.users, given.items, given.window + 1 + given.dates)
    with tempfile.TemporaryDirectory() as folder:
        report = measure(world, given.window, Path(folder))
    sys.stdout.write(f"{render(report)}\n")
    sys.exit(report.ratio > MOST)


if __name__ == "__main__":
    main()
