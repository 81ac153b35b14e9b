"""Samples trained per CPU second: ours, naive PyTorch, and two peers; and how memory grows.

    python -m dssm_assets_tests.benchmarks.training_speed --setting wide --seconds 15 --python /path/to/python

One setting is generated once; every contender trains on it in a process of its own, on one thread, until its seconds are
spent, and the middle step counts (`training_pace.py`). Peers run in the interpreter of `--python`, into which the extra
`bench` is installed; by default that is this one. A peer that is not installed is reported as missing.

The columns `x` say how many times as fast ours is with the same negatives: naive PyTorch has the batch's other items and the
shared negatives; peers have at most the batch's other items, so they are compared with ours `in-batch only`. The share of the
limit counts the products of every column, including those that ours merges. Memory is compared with more samples of more
users, whose histories are as long as before, and with more samples of the same users.

Belongs here: running and tables. Does not belong here: settings, data, contenders, peers (`training_*.py`).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dssm_assets_tests
from dssm_assets_tests.benchmarks import process_cost, training_contenders, training_peers, training_world
from dssm_assets_tests.benchmarks.training_settings import Setting, setting_of

_OURS = ("ours, float32", "ours, bfloat16")
_IN_BATCH = ("in-batch only, float32", "in-batch only, bfloat16")
_NAIVE = "naive PyTorch"
_MORE_USERS, _LONGER_HISTORIES = "as many times the users", "the same users, longer histories"


@dataclass(frozen=True)
class Result:
    """The result of one contender.

    Attributes:
        name: the contender.
        samples_per_s: samples per CPU second; None if its library is missing.
        note: the missing library, or the number of measured steps.
        peak_mib, anonymous_mib: highest memory of the process, and without pages of files.
    """

    name: str
    samples_per_s: float | None
    note: str
    peak_mib: float = 0.0
    anonymous_mib: float = 0.0


@dataclass(frozen=True)
class Report:
    """All contenders on one setting.

    Attributes:
        setting: what was trained.
        limit_gflops: of a large product in this process, by number format.
        versions: of the peers' interpreter and libraries.
        results: by contender, ours first.
        growth: ours on more samples: what is larger, samples, result.
    """

    setting: Setting
    limit_gflops: dict[str, float]
    versions: dict[str, str]
    results: tuple[Result, ...]
    growth: tuple[tuple[str, int, Result], ...]

    def text(self) -> str:
        """Returns the tables."""
        lines = [
            f"{self.setting.name}: {self.setting.samples:,} samples, {self.setting.num_features} features, batch "
            f"{self.setting.batch_size:,}, {self.setting.num_sample:,} shared negatives",
            f"limit of a 1024^3 product: {self.limit_gflops['float32']:.0f} GFLOP/s in float32, "
            f"{self.limit_gflops['bfloat16']:.0f} in bfloat16; a sample takes {2 * self.setting.multiply_adds / 1e6:.2f} MFLOP",
            "peers: " + ", ".join(f"{name} {version or 'missing'}" for name, version in self.versions.items()),
            "",
            f"{'':<25}{'samples/CPU-s':>14}{'float32 x':>11}{'bfloat16 x':>12}{'of limit':>10}{'peak MiB':>10}  steps",
        ]
        lines += [self._row(result) for result in self.results]
        lines += ["", f"{'ours':<40}{'samples':>12}{'peak MiB':>10}{'without files':>15}{'times':>8}"]
        for what, samples, found in self.growth:
            times = found.anonymous_mib / max(self.growth[0][2].anonymous_mib, 1e-9)
            lines.append(f"{what:<40}{samples:>12,}{found.peak_mib:>10.0f}{found.anonymous_mib:>15.0f}{times:>8.2f}")
        return "\n".join(lines)

    def _row(self, result: Result) -> str:
        if not result.samples_per_s:
            return f"{result.name:<25}{result.note:>14}"
        kind = "bfloat16" if result.name == _OURS[1] else "float32"
        share = result.samples_per_s * 2 * self.setting.multiply_adds / 1e9 / self.limit_gflops[kind]
        # A contender with other negatives has other products than the setting counts.
        has_all = result.name in (*_OURS, _NAIVE)
        shown = f"{share:.0%}" if has_all else "-"
        rates = [self._rate(name) for name in (_OURS if has_all else _IN_BATCH)]
        times = ["-" if rate is None else f"{rate / result.samples_per_s:.2f}" for rate in rates]
        return (
            f"{result.name:<25}{result.samples_per_s:>14,.0f}{times[0]:>11}{times[1]:>12}{shown:>10}"
            f"{result.peak_mib:>10.0f}  {result.note}"
        )

    def _rate(self, name: str) -> float | None:
        return next((result.samples_per_s for result in self.results if result.name == name), None)


def run_in_process(python: str, work: Callable[..., Any], /, **arguments: Any) -> Any:
    """Returns what a module's function returns in a fresh process of this interpreter, on one thread."""
    root = str(Path(dssm_assets_tests.__file__).parents[1])
    command = [python, "-m", process_cost.__name__, work.__module__, work.__qualname__, json.dumps(arguments)]
    environment = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise RuntimeError(f"{work.__module__}.{work.__qualname__} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(
    setting: dict[str, Any],
    *,
    seconds: float,
    growth: int,
    python: str,
    folder: Path,
    run: Callable[..., Any] = run_in_process,
) -> Report:
    """Returns the results of the contenders.

    Args:
        setting: name of a setting and sizes that replace its own.
        seconds: CPU seconds of training per contender.
        growth: factor of the samples in the memory table; 0: no such table.
        python: interpreter of the peers.
        folder: for the generated data.
        run: how a contender is run: interpreter, function, arguments.
    """
    world = setting_of(setting)
    training_world.write(folder / "data", world)
    common = {"folder": str(folder / "data"), "setting": setting, "budget_s": seconds}
    results = [
        *(
            _result(
                name, run(sys.executable, training_contenders.ours, **common, precision=precision, in_batch_only=in_batch_only)
            )
            for names, in_batch_only in ((_OURS, False), (_IN_BATCH, True))
            for name, precision in zip(names, ("float32", "bfloat16"), strict=True)
        ),
        _result(_NAIVE, run(sys.executable, training_contenders.naive, **common)),
        _result("RecTools DSSM", run(python, training_peers.rectools, **common)),
        _result("torch-rechub DSSM", run(python, training_peers.rechub, **common)),
    ]
    grown = [("as above", world.samples, results[0])] if growth else []
    if growth:
        more = {**setting, "samples": growth * world.samples}
        for what, larger in ((_MORE_USERS, {**more, "users": growth * world.users}), (_LONGER_HISTORIES, more)):
            grown.append((what, more["samples"], _grown(larger, seconds, folder / f"larger {len(grown)}", run)))
    limit = run(sys.executable, training_contenders.product_limit)
    return Report(world, limit, run(python, training_peers.versions), tuple(results), tuple(grown))


def _grown(setting: dict[str, Any], seconds: float, folder: Path, run: Callable[..., Any]) -> Result:
    training_world.write(folder, setting_of(setting))
    place = {"folder": str(folder), "setting": setting, "budget_s": seconds, "precision": "float32"}
    found = _result(_OURS[0], run(sys.executable, training_contenders.ours, **place))
    shutil.rmtree(folder)
    return found


def _result(name: str, shown: dict[str, Any]) -> Result:
    if "missing" in shown:
        return Result(name, None, f"missing: {shown['missing']}")
    return Result(name, shown["samples_per_s"], str(shown["steps"]), shown["peak_mib"], shown["anonymous_mib"])


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--setting", choices=("wide", "demo-like"), default="wide")
    for name in ("samples", "users", "items", "batch-size"):
        parser.add_argument(f"--{name}", type=int, help="replaces the setting's own")
    parser.add_argument("--seconds", type=float, default=15.0, help="CPU seconds of training per contender")
    parser.add_argument("--growth", type=int, default=10, help="factor of the samples in the memory table; 0: none")
    parser.add_argument("--python", default=sys.executable, help="interpreter with the extra `bench`")
    given = vars(parser.parse_args(arguments))
    sizes = {name: given[name] for name in ("samples", "users", "items", "batch_size") if given[name] is not None}
    with tempfile.TemporaryDirectory() as scratch:
        report = measure(
            {"name": given["setting"], **sizes},
            seconds=given["seconds"],
            growth=given["growth"],
            python=given["python"],
            folder=Path(scratch),
        )
    sys.stdout.write(report.text() + "\n")


if __name__ == "__main__":
    main()
