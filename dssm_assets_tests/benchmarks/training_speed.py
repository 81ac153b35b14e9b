"""Samples trained per CPU second: ours, naive PyTorch, and a peer.

    python -m dssm_assets_tests.benchmarks.training_speed --setting wide --seconds 15

One setting is generated once. Every contender trains on it in a process of its own, on one thread, until its seconds are spent.
The peer needs the extra `bench`, and is otherwise reported as missing.

The columns `x` say how many times as fast ours is with the same negatives: naive PyTorch has the batch's other items and the
shared negatives; the peer has only the batch's other items, so it is compared with ours `in-batch only`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dssm_assets_tests.benchmarks import training_contenders
from dssm_assets_tests.benchmarks.process_cost import run_apart
from dssm_assets_tests.benchmarks.training_world import setting_of, write_tables

PRECISIONS = ("float32", "bfloat16")
NAIVE, PEER = "naive PyTorch", "torch-rechub DSSM"
Results = dict[str, dict[str, Any]]
"""Contender -> samples_per_s, steps and peak_mib, or the missing library."""


def measure(setting: dict[str, Any], *, seconds: float, folder: Path) -> Results:
    """Returns the results of the contenders, of as many CPU seconds each.

    Args:
        setting: name of a setting and sizes that replace its own.
        folder: for the generated data.
    """
    write_tables(folder / "data", setting_of(setting))
    common = {"folder": str(folder / "data"), "setting": setting, "budget_s": seconds}
    found = {}
    for kind, in_batch_only in (("ours", False), ("in-batch only", True)):
        for precision in PRECISIONS:
            more = {"precision": precision, "in_batch_only": in_batch_only}
            found[f"{kind}, {precision}"] = run_apart(training_contenders.ours, **common, **more)
    found[NAIVE] = run_apart(training_contenders.naive, **common)
    found[PEER] = run_apart(training_contenders.rechub, **common)
    return found


def render(setting: dict[str, Any], results: Results) -> str:
    """Returns the table."""
    made = setting_of(setting)
    lines = [
        f"{made.name}: {made.samples:,} samples, {made.num_features} features, batch {made.batch_size:,}, "
        f"{made.num_sample:,} shared negatives",
        "",
        f"{'':<25}{'samples/CPU-s':>14}{'float32 x':>11}{'bfloat16 x':>12}{'peak MiB':>10}  steps",
    ]
    for name, found in results.items():
        if "missing" in found:
            lines.append(f"{name:<25}{'missing: ' + found['missing']:>14}")
            continue
        kind = "in-batch only" if name == PEER or name.startswith("in-batch") else "ours"
        times = [results[f"{kind}, {precision}"]["samples_per_s"] / found["samples_per_s"] for precision in PRECISIONS]
        figures = f"{found['samples_per_s']:>14,.0f}{times[0]:>11.2f}{times[1]:>12.2f}{found['peak_mib']:>10.0f}"
        lines.append(f"{name:<25}{figures}  {found['steps']}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--setting", choices=("wide", "demo-like"), default="wide")
    for name in ("samples", "users", "items", "batch-size"):
        parser.add_argument(f"--{name}", type=int, help="replaces the setting's own")
    parser.add_argument("--seconds", type=float, default=15.0, help="CPU seconds of training per contender")
    given = vars(parser.parse_args(arguments))
    sizes = {name: given[name] for name in ("samples", "users", "items", "batch_size") if given[name] is not None}
    setting = {"name": given["setting"], **sizes}
    with tempfile.TemporaryDirectory() as scratch:
        results = measure(setting, seconds=given["seconds"], folder=Path(scratch))
    sys.stdout.write(render(setting, results) + "\n")


if __name__ == "__main__":
    main()
