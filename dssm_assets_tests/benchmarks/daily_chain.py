"""Measures the daily chain of one evaluation day under a memory limit, step by step, and how its cost grows with the rows.

    python -m dssm_assets_tests.benchmarks.daily_chain --rows 10000000 --limit-mib 2048 --report 10m.json
    python -m dssm_assets_tests.benchmarks.daily_chain --compare 1m.json 10m.json 30m.json

Every step (`chain_steps.py`) runs in a process of its own that cannot allocate more than the limit (`process_cost.py`). Rows
are those of a window of 30 days. The log has one more day, which is scored. There is one user per 20 rows and one item per 50, so
a world with ten times the rows also has ten times the users and items.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from dssm_assets_tests.benchmarks.chain_steps import chain_steps, run_steps, write_chain
from dssm_assets_tests.benchmarks.process_cost import run_limited
from dssm_assets_tests.benchmarks.world import World

WINDOW = 30
"""Training days."""
ENGINE_DIVISOR = 4
"""The engine gets the limit divided by this: it uses more memory than it counts, and the rows read from it need some too."""


@dataclass(frozen=True)
class StepCost:
    """The cost of a step over its days; CPU time includes the loading of libraries, memory is as of `process_cost.Limited`."""

    name: str
    days: int
    rows: int
    bytes: int
    cpu_s: float
    counted_mib: float
    resident_mib: float


@dataclass(frozen=True)
class ChainReport:
    """The costs of a complete chain, in the order of its steps; `limit_mib` None: no limit."""

    world: World
    window: int
    limit_mib: int | None
    steps: tuple[StepCost, ...]

    @property
    def rows(self) -> int:
        return round(self.world.rows * self.window / self.world.days)

    @classmethod
    def read(cls, path: Path) -> ChainReport:
        found = json.loads(path.read_text(encoding="utf-8"))
        steps = tuple(StepCost(**step) for step in found["steps"])
        return cls(World(**found["world"]), found["window"], found["limit_mib"], steps)


def chain_world(rows: int, window: int, users: int | None = None, items: int | None = None) -> World:
    """Returns the world whose window has this many rows; its log has one more day, which is scored."""
    return World(rows * (window + 1) // window, users or rows // 20, items or rows // 50, window + 1)


def measure(world: World, folder: Path, limit_mib: int | None) -> ChainReport:
    """Returns the cost of every step of the chain under the limit, with everything written into a folder.

    Raises:
        MemoryError: a step failed.
    """
    engine = f"{max((limit_mib or 2048) // ENGINE_DIVISOR, 64)}MB"
    write_chain(asdict(world), str(folder), WINDOW, engine)
    costs = []
    for step in chain_steps():
        seen = run_limited(run_steps, limit_mib, world=asdict(world), folder=str(folder), steps=[asdict(step)])
        costs.append(StepCost(**seen.result[0], counted_mib=seen.counted_mib, resident_mib=seen.resident_mib))
        sys.stderr.write(f"{step.name}: {costs[-1].cpu_s:.1f} s, {costs[-1].counted_mib:.0f} MiB\n")
    return ChainReport(world, WINDOW, limit_mib, tuple(costs))


def exponent(rows: Sequence[int], cost: Sequence[float]) -> float:
    """Returns the least-squares slope b of log(cost) = a + b log(rows): 1 is linear growth, 2 is quadratic."""
    points = [(math.log(at), math.log(max(spent, 1e-3))) for at, spent in zip(rows, cost, strict=True)]
    x, y = (sum(values) / len(points) for values in zip(*points, strict=True))
    return sum((a - x) * (b - y) for a, b in points) / sum((a - x) ** 2 for a, _ in points)


def render(report: ChainReport) -> str:
    world, limit = report.world, "no limit" if report.limit_mib is None else f"limit {report.limit_mib:,} MiB"
    title = f"{report.rows:,} rows in {report.window} days, {world.users:,} users, {world.items:,} items, seed {world.seed}; {limit}"
    rows = [
        (
            step.name,
            str(step.days),
            f"{step.rows:,}",
            f"{step.cpu_s:.1f}",
            f"{step.rows / max(step.cpu_s, 1e-2):,.0f}",
            f"{step.resident_mib:,.0f}",
            f"{step.counted_mib:,.0f}",
            f"{step.bytes / 1e6:,.1f}",
        )
        for step in report.steps
    ]
    cpu_s, peak = sum(step.cpu_s for step in report.steps), max(step.counted_mib for step in report.steps)
    rows.append(("all", "", "", f"{cpu_s:,.1f}", "", "", f"{peak:,.0f}", ""))
    header = ("step", "days", "rows", "CPU s", "rows/CPU s", "resident MiB", "counted MiB", "MB written")
    return f"{title}\n\n{markdown_table(header, rows)}\n"


def compare(reports: Sequence[ChainReport]) -> str:
    """Returns the CPU seconds of each step in worlds of several sizes, with the exponent of their growth."""
    sizes = [report.rows for report in reports]
    by_name = [{step.name: step for step in report.steps} for report in reports]
    shared = [name for name in by_name[0] if all(name in steps for steps in by_name)]
    rows = []
    for name in shared:
        spent = [steps[name].cpu_s for steps in by_name]
        shown = f"{exponent(sizes, spent):.2f}" if min(spent) >= 1.0 else ""
        rows.append((name, *(f"{cpu:,.1f}" for cpu in spent), shown, f"{max(s[name].counted_mib for s in by_name):,.0f}"))
    totals = [sum(steps[name].cpu_s for name in shared) for steps in by_name]
    peak = max(step.counted_mib for report in reports for step in report.steps)
    rows.append(("all", *(f"{cpu:,.1f}" for cpu in totals), f"{exponent(sizes, totals):.2f}", f"{peak:,.0f}"))
    header = ("CPU s", *(f"{size / 1e6:g}M rows" for size in sizes), "exponent", "most MiB counted")
    return markdown_table(header, rows) + "\n"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table with right-aligned figures."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Runs the chain and prints its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="events in the window")
    parser.add_argument("--limit-mib", type=int, default=2048, help="memory limit of each step; 0: no limit")
    parser.add_argument("--report", type=Path, help="write the costs to this JSON file")
    parser.add_argument("--compare", type=Path, nargs="+", help="run nothing; show how costs grow over these reports")
    given = parser.parse_args()
    if given.compare:
        sys.stdout.write(compare(sorted(map(ChainReport.read, given.compare), key=lambda report: report.rows)))
        return
    with tempfile.TemporaryDirectory(prefix="dssm-chain-") as scratch:
        report = measure(chain_world(given.rows, WINDOW), Path(scratch), given.limit_mib or None)
    if given.report:
        given.report.write_text(json.dumps(asdict(report), indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(render(report))


if __name__ == "__main__":
    main()
