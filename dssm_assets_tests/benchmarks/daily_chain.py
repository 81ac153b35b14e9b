"""Measures the daily chain of one evaluation day under a memory limit, step by step, and how its cost grows with the rows.

    python -m dssm_assets_tests.benchmarks.daily_chain --rows 10000000 --limit-mib 2048 --report 10m.json
    python -m dssm_assets_tests.benchmarks.daily_chain --compare 1m.json 10m.json 30m.json

Every step (`chain_steps.py`) runs in a process of its own that cannot allocate more than the limit (`process_cost.py`). Rows
are those of the window. The log has one more day, which is scored. By default there is one user per 20 rows and one item per
50, so a world with ten times the rows also has ten times the users and items.

Belongs here: running all steps, the report as JSON, its tables. Does not belong here: the steps, the limit.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from dssm_assets_tests.benchmarks.chain_steps import ChainStep, chain_steps, run_steps, write_chain
from dssm_assets_tests.benchmarks.process_cost import Limited, run_limited
from dssm_assets_tests.benchmarks.world import World

ENGINE_DIVISOR = 4
"""The engine gets the limit divided by this: it uses more memory than it counts, and the rows read from it need some too."""


@dataclass(frozen=True)
class StepCost:
    """The cost of a step over its days.

    Attributes:
        name: the asset.
        days: number of partitions that were built.
        rows: rows of these partitions.
        bytes: size of their files.
        cpu_s: user and system time, including the loading of libraries.
        counted_mib: peak of the memory that the limit counts.
        resident_mib: peak of resident anonymous memory.
    """

    name: str
    days: int
    rows: int
    bytes: int
    cpu_s: float
    counted_mib: float
    resident_mib: float


@dataclass(frozen=True)
class ChainReport:
    """The costs of a complete chain.

    Attributes:
        world: the generated world.
        window: number of training days.
        limit_mib: memory limit of each step; None: no limit.
        steps: costs of the steps, in the order in which they ran.
    """

    world: World
    window: int
    limit_mib: int | None
    steps: tuple[StepCost, ...]

    @property
    def rows(self) -> int:
        """Rows of the window."""
        return round(self.world.rows * self.window / self.world.days)

    @property
    def cpu_s(self) -> float:
        """CPU seconds of all steps."""
        return sum(step.cpu_s for step in self.steps)

    @property
    def peak_mib(self) -> float:
        """The highest counted memory of any step."""
        return max(step.counted_mib for step in self.steps)

    def to_json(self) -> str:
        """Returns the report as JSON."""
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> ChainReport:
        """Returns the report that `to_json` wrote."""
        found = json.loads(text)
        steps = tuple(StepCost(**step) for step in found["steps"])
        return cls(World(**found["world"]), found["window"], found["limit_mib"], steps)


def chain_world(rows: int, window: int, users: int | None = None, items: int | None = None, seed: int = 17) -> World:
    """Returns the world whose window has this many rows; its log has one more day, which is scored."""
    return World(rows * (window + 1) // window, users or rows // 20, items or rows // 50, window + 1, seed)


def measure(
    world: World,
    folder: Path,
    *,
    window: int,
    limit_mib: int | None,
    on_step: Callable[[StepCost], None] = lambda _: None,
    run: Callable[..., Limited] = run_limited,
    steps: Sequence[ChainStep] | None = None,
) -> ChainReport:
    """Returns the cost of every step of the chain under the limit.

    Args:
        world: its size and seed; the last day of its log is scored.
        folder: where everything is written; files of the same world are overwritten.
        window: number of training days before the scored day.
        limit_mib: memory that no step may exceed; None: no limit.
        on_step: called after each step.
        run: starts a process.
        steps: the steps to run; None: all.

    Raises:
        MemoryError: a step failed.
    """
    engine = f"{max((limit_mib or 2048) // ENGINE_DIVISOR, 64)}MB"
    run(write_chain, None, world=asdict(world), folder=str(folder), window=window, engine_memory=engine)
    costs = []
    for step in chain_steps() if steps is None else steps:
        seen = run(run_steps, limit_mib, world=asdict(world), folder=str(folder), steps=[asdict(step)])
        costs.append(StepCost(**seen.result[0], counted_mib=seen.counted_mib, resident_mib=seen.resident_mib))
        on_step(costs[-1])
    return ChainReport(world, window, limit_mib, tuple(costs))


def exponent(rows: Sequence[int], cost: Sequence[float]) -> float:
    """Returns the least-squares slope b of log(cost) = a + b log(rows): 1 is linear growth, 2 is quadratic."""
    points = [(math.log(at), math.log(max(spent, 1e-3))) for at, spent in zip(rows, cost, strict=True)]
    x, y = (sum(values) / len(points) for values in zip(*points, strict=True))
    return sum((a - x) * (b - y) for a, b in points) / sum((a - x) ** 2 for a, _ in points)


def render(report: ChainReport) -> str:
    """Returns the report as a title and a Markdown table."""
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
    rows.append(("all", "", "", f"{report.cpu_s:,.1f}", "", "", f"{report.peak_mib:,.0f}", ""))
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
    peak = max(report.peak_mib for report in reports)
    rows.append(("all", *(f"{cpu:,.1f}" for cpu in totals), f"{exponent(sizes, totals):.2f}", f"{peak:,.0f}"))
    header = ("CPU s", *(f"{size / 1e6:g}M rows" for size in sizes), "exponent", "most MiB counted")
    return markdown_table(header, rows) + "\n"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table with right-aligned figures."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m dssm_assets_tests.benchmarks.daily_chain", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="events in the window")
    parser.add_argument("--users", type=int, help="default: one per 20 rows")
    parser.add_argument("--items", type=int, help="default: one per 50 rows")
    parser.add_argument("--window", type=int, default=30, help="number of training days")
    parser.add_argument("--seed", type=int, default=17)
    parser.add_argument("--limit-mib", type=int, default=2048, help="memory limit of each step; 0: no limit")
    parser.add_argument("--folder", type=Path, help="where to write, kept afterwards (default: a temporary folder)")
    parser.add_argument("--report", type=Path, help="write the costs to this JSON file")
    parser.add_argument("--compare", type=Path, nargs="+", help="run nothing; show how costs grow over these reports")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the chain and prints its table."""
    given = _parser().parse_args(arguments)
    if given.compare:
        reports = [ChainReport.from_json(path.read_text(encoding="utf-8")) for path in given.compare]
        sys.stdout.write(compare(sorted(reports, key=lambda report: report.rows)))
        return
    world = chain_world(given.rows, given.window, given.users, given.items, given.seed)
    limit = given.limit_mib or None

    def show(step: StepCost) -> None:
        sys.stderr.write(f"{step.name}: {step.cpu_s:.1f} s, {step.counted_mib:.0f} MiB\n")

    with tempfile.TemporaryDirectory(prefix="dssm-chain-") as scratch:
        report = measure(world, given.folder or Path(scratch), window=given.window, limit_mib=limit, on_step=show)
    if given.report:
        given.report.write_text(report.to_json(), encoding="utf-8")
    sys.stdout.write(render(report))


if __name__ == "__main__":
    main()
