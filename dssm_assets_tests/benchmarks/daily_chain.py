"""The daily chain of one evaluation day under a limit on memory, step by step; and how its cost grows with the rows.

    python -m dssm_assets_tests.benchmarks.daily_chain --rows 10000000 --limit-mib 2048 --report 10m.json
    python -m dssm_assets_tests.benchmarks.daily_chain --compare 1m.json 10m.json 30m.json

Every step runs in a process of its own that cannot allocate more than the limit (`memory_limit.py`), from the source tables
to the hit rate (`chain_steps.py`). Rows are those of the window; the log has one day more, which is scored. By default there
is a user for 20 rows and an item for 50, so a world of ten times the rows has ten times the users and items too.

Belongs here: running all steps, the report as JSON, its tables. Does not belong here: the steps and the limit; what the
figures say of larger worlds (`capacity.py`).
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from dssm_assets_tests.benchmarks.chain_steps import ChainStep, chain_steps, run_step, write_chain
from dssm_assets_tests.benchmarks.memory_limit import Limited, run_limited
from dssm_assets_tests.benchmarks.world import World

ENGINE_FRAC = 4
"""The engine gets one in so many parts of the limit: it holds more than it counts, and what reads from it holds some too."""


@dataclass(frozen=True)
class StepCost:
    """What a step took over its days.

    Attributes:
        name: the asset.
        days: partitions that were made.
        rows: rows of these partitions.
        bytes: size of their files.
        cpu_s: user and system time, libraries loaded on first use included.
        counted_mib: the most that the limit counted.
        resident_mib: the most anonymous memory that was resident.
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
    """A chain that went through.

    Attributes:
        world: what it ran over.
        window: days that are learned from.
        limit_mib: memory of each step.
        steps: in their order.
        max_users: of the evaluation day that were scored at most; None: all.
    """

    world: World
    window: int
    limit_mib: int | None
    steps: tuple[StepCost, ...]
    max_users: int | None = None

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
        """The most that the limit counted in any step."""
        return max(step.counted_mib for step in self.steps)

    def to_json(self) -> str:
        """Returns the report as JSON."""
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> ChainReport:
        """Returns the report that `to_json` wrote."""
        found = json.loads(text)
        steps = tuple(StepCost(**step) for step in found["steps"])
        return cls(World(**found["world"]), found["window"], found["limit_mib"], steps, found.get("max_users"))


def chain_world(rows: int, window: int, users: int | None = None, items: int | None = None, seed: int = 17) -> World:
    """Returns the world whose window has so many rows, with one day more that is scored."""
    return World(rows * (window + 1) // window, users or rows // 20, items or rows // 50, window + 1, seed)


def measure(
    world: World,
    folder: Path,
    *,
    window: int,
    limit_mib: int | None,
    max_users: int | None = None,
    told: Callable[[StepCost], None] = lambda _: None,
    run: Callable[..., Limited] = run_limited,
    steps: Sequence[ChainStep] | None = None,
    done: Sequence[StepCost] = (),
) -> ChainReport:
    """Returns what every step of the chain takes under the limit.

    Args:
        world: its size and seed; the last day of its log is scored.
        folder: for everything that is written; what stands there already of the same world is written over.
        window: days before the scored one that are learned from.
        limit_mib: memory that no step may exceed; None: no limit.
        max_users: that are scored at most; None: all.
        told: of each step when it is done.
        run: starts a process.
        steps: by default all.
        done: steps that were measured in this folder already, the first ones; they are not run again.

    Raises:
        MemoryError: a step did not go through.
    """
    engine = f"{max((limit_mib or 2048) // ENGINE_FRAC, 64)}MB"
    if not done:
        asked = {"window": window, "engine_memory": engine, "max_users": max_users}
        run(write_chain, None, world=asdict(world), folder=str(folder), **asked)
    costs = list(done)
    for step in (chain_steps() if steps is None else steps)[len(done) :]:
        seen = run(run_step, limit_mib, world=asdict(world), folder=str(folder), step=asdict(step))
        cost = {name: seen.result[name] for name in ("name", "days", "rows", "bytes", "cpu_s")}
        costs.append(StepCost(**cost, counted_mib=seen.counted_mib, resident_mib=seen.resident_mib))
        told(costs[-1])
    return ChainReport(world, window, limit_mib, tuple(costs), max_users)


def exponent(rows: Sequence[int], cost: Sequence[float]) -> float:
    """Returns b of the line log(cost) = a + b log(rows) by least squares: 1 is linear growth, 2 quadratic."""
    points = [(math.log(at), math.log(max(spent, 1e-3))) for at, spent in zip(rows, cost, strict=True)]
    x, y = (sum(values) / len(points) for values in zip(*points, strict=True))
    return sum((a - x) * (b - y) for a, b in points) / sum((a - x) ** 2 for a, _ in points)


def render(report: ChainReport) -> str:
    """Returns the report as a table of Markdown."""
    world, limit = report.world, "no limit" if report.limit_mib is None else f"limit {report.limit_mib:,} MiB"
    title = f"{report.rows:,} rows in {report.window} days, {world.users:,} users, {world.items:,} items, seed {world.seed}; {limit}"
    title += "" if report.max_users is None else f"; {report.max_users:,} users scored at most"
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
    """Returns a table of Markdown, figures to the right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m dssm_assets_tests.benchmarks.daily_chain", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="events in the window")
    parser.add_argument("--users", type=int, help="default: one for 20 rows")
    parser.add_argument("--items", type=int, help="default: one for 50 rows")
    parser.add_argument("--window", type=int, default=30, help="days that are learned from")
    parser.add_argument("--seed", type=int, default=17)
    parser.add_argument("--limit-mib", type=int, default=2048, help="memory of each step; 0: no limit")
    parser.add_argument("--max-users", type=int, help="users of the evaluation day that are scored at most (default: all)")
    parser.add_argument("--until", choices=[step.name for step in chain_steps()], help="the last step (default: all)")
    parser.add_argument("--folder", type=Path, help="where to write; it is kept (default: a temporary folder)")
    parser.add_argument(
        "--report",
        type=Path,
        help="write the figures to this JSON file, after every step; with the --folder "
        "of a run that was stopped, go on behind the steps that it has",
    )
    parser.add_argument("--compare", type=Path, nargs="+", help="run nothing: show the growth over these reports")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures what the arguments say and prints the table."""
    given = _parser().parse_args(arguments)
    if given.compare:
        reports = [ChainReport.from_json(path.read_text(encoding="utf-8")) for path in given.compare]
        sys.stdout.write(compare(sorted(reports, key=lambda report: report.rows)))
        return
    world = chain_world(given.rows, given.window, given.users, given.items, given.seed)
    limit = given.limit_mib or None
    max_users = given.max_users
    done = _done(given.report, ChainReport(world, given.window, limit, (), max_users)) if given.folder else []

    def told(step: StepCost) -> None:
        sys.stderr.write(f"{step.name}: {step.cpu_s:.1f} s, {step.counted_mib:.0f} MiB\n")
        done.append(step)
        if given.report:
            report = ChainReport(world, given.window, limit, tuple(done), max_users)
            given.report.write_text(report.to_json(), encoding="utf-8")

    with tempfile.TemporaryDirectory(prefix="dssm-chain-") as scratch:
        folder = given.folder or Path(scratch)
        steps = chain_steps()
        until = len(steps) if given.until is None else 1 + [step.name for step in steps].index(given.until)
        asked = {"window": given.window, "limit_mib": limit, "max_users": max_users}
        report = measure(world, folder, **asked, told=told, steps=steps[:until], done=tuple(done))
    sys.stdout.write(render(report))


def _done(path: Path | None, asked: ChainReport) -> list[StepCost]:
    """Returns the steps of a report of the same world and settings that was written before; none of another one."""
    if path is None or not path.exists():
        return []
    found = ChainReport.from_json(path.read_text(encoding="utf-8"))
    return list(found.steps) if replace(found, steps=()) == asked else []


if __name__ == "__main__":
    main()
