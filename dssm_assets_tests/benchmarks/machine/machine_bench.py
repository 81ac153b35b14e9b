"""The bench of a machine: its limits, the rate of every part of the library, and the share of the limit that each part reaches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

import torch

from dssm_assets_tests.benchmarks.machine import parts
from dssm_assets_tests.benchmarks.machine.generated import BenchSizes

_WIDTH: Final = 1024
_BYTES: Final = 1 << 28
_REPEATS: Final = 5


@dataclass(frozen=True)
class MachineLimits:
    """What the machine can do with the given threads.

    Attributes:
        gflops: floating point operations per second of a float32 product of two 1024 x 1024 matrices, in billions.
        gbytes: bytes per second that a copy of 256 MiB reads and writes, in billions.
    """

    gflops: float
    gbytes: float

    def rows_per_s(self, flops: float, bytes_moved: float) -> tuple[float, str]:
        """Returns how many rows per second the machine could process at best, and the limit that binds.

        Args:
            flops: floating point operations of one row; 0: only memory binds.
        """
        product = self.gflops * 1e9 / flops if flops else float("inf")
        memory = self.gbytes * 1e9 / bytes_moved if bytes_moved else float("inf")
        return (product, "matrix product") if product <= memory else (memory, "memory bandwidth")


def measure_limits(now: Callable[[], float]) -> MachineLimits:
    """Returns the limits of this machine with the current number of torch threads: the best of five runs each."""
    left = torch.rand(_WIDTH, _WIDTH)
    product = _best_seconds(lambda: torch.mm(left, left), now)
    source, target = torch.ones(_BYTES // 4), torch.ones(_BYTES // 4)
    copy = _best_seconds(lambda: target.copy_(source), now)
    return MachineLimits(2 * _WIDTH**3 / product / 1e9, 2 * _BYTES / copy / 1e9)


def _best_seconds(work: Callable[[], object], now: Callable[[], float]) -> float:
    seconds = []
    work()
    for _ in range(_REPEATS):
        start = now()
        work()
        seconds.append(now() - start)
    return max(min(seconds), 1e-9)


DEVICE = "cpu"
"""Of every part and of the limits, even on a machine with a GPU."""
STAGES = ("limits of the machine", "feature generation", "training and vectors", "exact search and index")


@dataclass(frozen=True)
class Rate:
    """The rate of a part, and the best rate that the machine allows.

    Attributes:
        unit: what a row is.
        per_s: rows per second.
        limit: the limit that binds: matrix product or memory bandwidth.
        limit_per_s: rows per second at that limit.
        note: settings or a result of the part.
    """

    name: str
    unit: str
    per_s: float
    limit: str
    limit_per_s: float
    note: str

    @property
    def limit_frac(self) -> float:
        """Returns the share of the limit that the part reaches."""
        return self.per_s / self.limit_per_s


@dataclass(frozen=True)
class BenchReport:
    """The sizes, the limits of the machine and the rates."""

    sizes: BenchSizes
    limits: MachineLimits
    rates: tuple[Rate, ...]

    def to_document(self) -> dict[str, Any]:
        rates = [{**asdict(rate), "limit_frac": rate.limit_frac} for rate in self.rates]
        return {"device": DEVICE, "sizes": asdict(self.sizes), "limits": asdict(self.limits), "rates": rates}


def run_bench(sizes: BenchSizes, now: Callable[[], float], on_stage: Callable[[str], None] = lambda _: None) -> BenchReport:
    """Returns the limits and rates of this machine. All data is generated in memory and nothing is written.

    Args:
        now: seconds of a monotonic clock.
        on_stage: called with the name of each of STAGES when it begins.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(sizes.threads)
    try:
        on_stage(STAGES[0])
        limits = measure_limits(now)
        rates = [_rate(timed, limits) for timed in _time_parts(sizes, now, on_stage)]
    finally:
        torch.set_num_threads(before)
    return BenchReport(sizes, limits, tuple(rates))


def _time_parts(sizes: BenchSizes, now: Callable[[], float], on_stage: Callable[[str], None]) -> Iterator[parts.Timed]:
    for stage, part in zip(STAGES[1:], (parts.feature_generation, parts.towers, parts.searches), strict=True):
        on_stage(stage)
        yield from part(sizes, now)


def _rate(timed: parts.Timed, limits: MachineLimits) -> Rate:
    limit_per_s, limit = limits.rows_per_s(timed.flops, timed.bytes_moved)
    return Rate(timed.name, timed.unit, timed.rows / timed.seconds, limit, limit_per_s, timed.note)
