"""`python -m dssm_assets_tests.benchmarks.machine`: the speed of each part of the library on this machine, next to the limits of the hardware."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from dssm_assets_tests.benchmarks.machine.machine_bench import BenchReport

KINDS = ("auto", "flat", "hnsw", "ivf")
_EPILOG = (
    "All data is generated in memory, nothing is written. A limit is the rate that the matrix product or the memory bandwidth "
    "of this machine, measured in the same run, would allow for the least work of a row. Times are wall clock, so run nothing "
    "else meanwhile."
)
_SHORT = {"matrix product": "product", "memory bandwidth": "memory"}
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def main(arguments: list[str] | None = None) -> None:
    made = argparse.ArgumentParser(
        description="Rows, samples and queries per second on this machine, next to its limits.", epilog=_EPILOG
    )
    made.add_argument("--rows", type=int, default=500_000, help="rows of feature generation (default: 500000)")
    made.add_argument("--samples", type=int, default=200_000, help="training samples (default: 200000)")
    made.add_argument("--users", type=int, default=20_000, help="users of the training data (default: 20000)")
    made.add_argument("--items", type=int, default=20_000, help="items of the training data (default: 20000)")
    made.add_argument("--corpus", type=int, default=200_000, help="items that are searched (default: 200000)")
    made.add_argument("--queries", type=int, default=2_048, help="users that search (default: 2048)")
    made.add_argument("--dims", type=int, default=64, help="width of vectors (default: 64)")
    made.add_argument("-k", type=int, default=200, help="length of the lists (default: 200)")
    made.add_argument("--index", choices=KINDS, default="ivf", help="kind of the index (default: ivf)")
    made.add_argument("--threads", type=int, default=1, help="threads of every part (default: 1)")
    made.add_argument("--seed", type=int, default=17, help="seed of the generated data (default: 17)")
    made.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    _bench(made.parse_args(arguments))


def _bench(parsed: argparse.Namespace) -> None:
    # NumPy and torch read these when they are imported, so the bench is imported after this line.
    os.environ.update(dict.fromkeys(_THREADS, str(parsed.threads)))
    from rich.console import Console

    from dssm_assets.core.config.evaluation import IndexKind
    from dssm_assets_tests.benchmarks.machine.generated import BenchSizes
    from dssm_assets_tests.benchmarks.machine.machine_bench import run_bench

    names = ("rows", "samples", "users", "items", "corpus", "queries", "dims", "k", "threads", "seed")
    sizes = BenchSizes(**{name: getattr(parsed, name) for name in names}, index=IndexKind(parsed.index))
    if parsed.json:
        print(json.dumps(run_bench(sizes, time.perf_counter).to_document()))
        return
    console = Console()
    with Console(stderr=True).status("") as status:

        def on_stage(stage: str) -> None:
            status.update(stage)
            if not sys.stderr.isatty():
                print(stage, flush=True)

        report = run_bench(sizes, time.perf_counter, on_stage)
    _print(console, report)


def _print(console: Console, report: BenchReport) -> None:
    from rich import box
    from rich.table import Table

    limits, threads = report.limits, report.sizes.threads
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1))
    table.add_column("part", max_width=28)
    for name in ("per second", "at the limit", "share"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("limit", no_wrap=True)
    for rate in report.rates:
        note = f"\n[dim]{', '.join(filter(None, (rate.unit, rate.note)))}[/dim]"
        figures = (f"{rate.per_s:,.0f}", f"{rate.limit_per_s:,.0f}", f"{rate.limit_frac:.1%}")
        table.add_row(rate.name + note, *figures, _SHORT[rate.limit])
    console.print(table)
    console.print(
        f"Everything ran on the CPU; GPUs are not used. Limits on {threads} thread{'s' if threads > 1 else ''}: matrix product {limits.gflops:,.1f} GFLOP/s in float32, memory "
        f"{limits.gbytes:,.1f} GB/s.",
        highlight=False,
        soft_wrap=True,
    )


if __name__ == "__main__":
    main()
