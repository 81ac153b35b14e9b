"""Feature generation on a generated world: our path from tables to train_samples compared with a naive pandas pipeline.

    python -m dssm_assets_tests.benchmarks.feature_generation --rows 10000000 --days 30

Both paths start from the same parquet tables (sample keys of each day, users and items as of the day before) and end with
the 59 features of every sample as bucket ids. Each run has its own process; CPU time includes its threads and children,
but not the start of the process. Our path is everything between the tables and train_samples, including the corpus of
negatives, which pandas has no counterpart for. Not measured on either side: the sources, the log, the rolling statistics
(see `our_path.py` for their substitute), and histories, which no feature of this world reads.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from dssm_assets_tests.benchmarks import operator_rows, our_path, pandas_path
from dssm_assets_tests.benchmarks.process_cost import run_apart
from dssm_assets_tests.benchmarks.world import World
from dssm_assets_tests.benchmarks.world_features import feature_definitions

FORMS: Final = (
    "The outputs have different forms: a row of our train_samples refers to tables of distinct user and item rows, each "
    "encoded once;\na row of the pandas table contains every feature. Rows of a step are the rows that it wrote: days that "
    "share a table count once."
)

Row = Sequence[object]
Run = Callable[..., Any]


@dataclass(frozen=True)
class Report:
    """The measurements: number of days -> result of each path, and the speed of each operator."""

    world: World
    is_daily: bool
    ours: dict[int, Any]
    pandas: dict[int, Any]
    operators: list[dict[str, Any]]


def measure(
    world: World, folder: Path, *, batch_rows: int, is_daily: bool = True, own_hash: bool = False, run: Run = run_apart
) -> Report:
    """Runs both paths over one day and over all days of the world, and every operator over one batch.

    Args:
        world: its size and seed.
        folder: an empty folder for everything that is written.
        batch_rows: rows of the batch that each operator gets.
        is_daily: users and items change every day; else all days share one table of each.
        own_hash: pandas hashes with our function, so that buckets are equal; else with its own.
        run: calls a function with its arguments, by default in a separate process.
    """
    run(our_path.prepare, world=asdict(world), folder=str(folder), is_daily=is_daily)
    ours, pandas = {}, {}
    features = feature_definitions()["features"]
    for days in sorted({1, world.days}):
        ours[days] = run(our_path.run, world=asdict(world), folder=str(folder), days=days)
        files = run(our_path.inputs_of, world=asdict(world), folder=str(folder), days=days)
        output = str(folder / f"pandas_{days}.parquet")
        pandas[days] = run(pandas_path.run, days=files, features=features, output=output, own_hash=own_hash)
    return Report(world, is_daily, ours, pandas, run(operator_rows.run, rows=batch_rows))


def render(report: Report) -> str:
    """Returns the report as text: a table per path and number of days, the ratios, the operators."""
    world = report.world
    size = f"{world.rows:,} rows, {world.users:,} users, {world.items:,} items, {_days(world.days)}"
    parts = [f"{size}, seed {world.seed}; users and items change {'every day' if report.is_daily else 'never'}", FORMS]
    for days in report.ours:
        for name, result in (("ours", report.ours[days]), ("pandas", report.pandas[days])):
            parts.append(f"{name}, {_days(days)}, {result['samples']:,} samples\n{_costs(result)}")
    parts.append(_table(("ratio", *map(_days, report.ours)), _ratios(report)))
    speeds = [
        (row["feature_type"], f"{row['rows']:,}", f"{row['encode']:,.0f}", f"{row['bucketize']:,.0f}", row["inputs"])
        for row in report.operators
    ]
    parts.append(_table(("operator", "batch rows", "encode rows/s", "bucketize rows/s", "inputs"), speeds))
    return "\n\n".join(parts) + "\n"


def total_cpu_s(result: dict[str, Any]) -> float:
    """Returns the CPU seconds of a whole path."""
    return float(sum(cost["cpu_s"] for cost in result["costs"]))


def peak_mib(result: dict[str, Any]) -> float:
    """Returns the highest peak of a path."""
    return float(max(cost["peak_mib"] for cost in result["costs"]))


def encoding_cpu_s(result: dict[str, Any]) -> float:
    """Returns the CPU seconds that a path spent on turning values into bucket ids, without reading, joining and writing."""
    if "encoding" in result:
        return float(sum(cost["cpu_s"] for cost in result["encoding"]))
    named = {cost["name"]: cost["cpu_s"] for cost in result["costs"]}
    return float(named[pandas_path.ENCODE] + named[pandas_path.CUT])


def _ratios(report: Report) -> list[Row]:
    pairs = [(report.pandas[days], report.ours[days]) for days in report.ours]
    one = report.ours[min(report.ours)], report.pandas[min(report.pandas)]
    return [
        ("CPU of pandas / ours, whole path", *(f"{total_cpu_s(theirs) / total_cpu_s(ours):.2f}" for theirs, ours in pairs)),
        ("CPU of pandas / ours, encoding alone", *(f"{encoding_cpu_s(a) / encoding_cpu_s(b):.2f}" for a, b in pairs)),
        ("peak of ours / ours over 1 day", *(f"{peak_mib(ours) / peak_mib(one[0]):.2f}" for _, ours in pairs)),
        ("peak of pandas / pandas over 1 day", *(f"{peak_mib(theirs) / peak_mib(one[1]):.2f}" for theirs, _ in pairs)),
    ]


def _days(count: int) -> str:
    return "1 day" if count == 1 else f"{count} days"


def _costs(result: dict[str, Any]) -> str:
    rows = [_cost_row(cost) for cost in result["costs"]]
    rows.append(("total", "", f"{total_cpu_s(result):.2f}", "", "", f"{peak_mib(result):,.0f}"))
    for cost in result.get("encoding", []):
        rows.append((f"of it {cost['name']}", f"{cost['rows']:,}", f"{cost['cpu_s']:.2f}", "", "", ""))
    return _table(("step", "rows", "CPU s", "wall s", "rows/CPU s", "peak MiB"), rows)


def _cost_row(cost: dict[str, Any]) -> Row:
    speed = cost["rows"] / max(cost["cpu_s"], 1e-9)
    figures = (
        f"{cost['rows']:,}",
        f"{cost['cpu_s']:.2f}",
        f"{cost['wall_s']:.2f}",
        f"{speed:,.0f}",
        f"{cost['peak_mib']:,.0f}",
    )
    return (cost["name"], *figures)


def _table(header: Row, rows: Sequence[Row]) -> str:
    """Returns columns padded to one width: texts are aligned left, numbers right."""
    texts = [[str(cell) for cell in row] for row in (header, *rows)]
    columns = [_align(column) for column in zip(*texts, strict=True)]
    lines = ["  ".join(cells).rstrip() for cells in zip(*columns, strict=True)]
    return "\n".join([lines[0], "  ".join("-" * len(column[0]) for column in columns), *lines[1:]])


def _align(column: Sequence[str]) -> list[str]:
    width = max(map(len, column))
    is_text = any(cell[:1].isalpha() for cell in column[1:])
    return [cell.ljust(width) if is_text else cell.rjust(width) for cell in column]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m dssm_assets_tests.benchmarks.feature_generation", description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000, help="events over all days")
    parser.add_argument("--users", type=int, help="default: one for 20 rows")
    parser.add_argument("--items", type=int, help="default: one for 50 rows")
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--seed", type=int, default=17)
    parser.add_argument("--batch-rows", type=int, default=1_000_000, help="rows of the batch that each operator gets")
    parser.add_argument("--folder", type=Path, help="where to write; it is kept (default: a temporary folder)")
    parser.add_argument("--tables", choices=["daily", "once"], default="daily", help="whether users and items change every day")
    parser.add_argument("--own-hash", action="store_true", help="pandas hashes with the reference's function, not its own")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures with the given arguments and prints the report."""
    given = _parser().parse_args(arguments)
    world = World(given.rows, given.users or given.rows // 20, given.items or given.rows // 50, given.days, given.seed)
    with tempfile.TemporaryDirectory(prefix="dssm-benchmark-") as scratch:
        folder = given.folder or Path(scratch)
        is_daily = given.tables == "daily"
        report = measure(world, folder, batch_rows=given.batch_rows, is_daily=is_daily, own_hash=given.own_hash)
    sys.stdout.write(render(report))


if __name__ == "__main__":
    main()
