"""The bench of a machine: its limits, then every part of the library, and each part's share of the limit that binds it.

Belongs here: the order, and rates beside limits. Does not belong here: the parts (`parts.py`), printing (`commands/bench.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from dssm_assets.bench import parts
from dssm_assets.bench.generated import BenchSizes

_WIDTH: Final = 1024
_BYTES: Final = 1 << 28
_REPEATS: Final = 5


@dataclass(frozen=True)
class MachineLimits:
    """What the machine can do with the given threads.

    Attributes:
        gflops: floating point operations a second of a float32 product of two 1024 x 1024 matrices, in thousand millions.
        gbytes: bytes a second that a copy of 256 MiB reads and writes, in thousand millions.
    """

    gflops: float
    gbytes: float

    def rows_per_s(self, flops: float, bytes_moved: float) -> tuple[float, str]:
        """Returns how many rows a second the machine could do at best, and which limit says so.

        Args:
            flops: operations of one row; 0: none that count.
            bytes_moved: bytes that one row reads and writes.
        """
        product = self.gflops * 1e9 / flops if flops else float("inf")
        memory = self.gbytes * 1e9 / bytes_moved if bytes_moved else float("inf")
        return (product, "matrix product") if product <= memory else (memory, "memory bandwidth")


def measure_limits(now: Callable[[], float]) -> MachineLimits:
    """Returns the limits of this machine with torch's threads as they are set: the best of five tries each."""
    import torch

    left = torch.rand(_WIDTH, _WIDTH)
    product = _best_seconds(lambda: torch.mm(left, left), now)
    source, target = torch.ones(_BYTES // 4), torch.ones(_BYTES // 4)
    copy = _best_seconds(lambda: target.copy_(source), now)
    return MachineLimits(2 * _WIDTH**3 / product / 1e9, 2 * _BYTES / copy / 1e9)


def _best_seconds(work: Callable[[], object], now: Callable[[], float]) -> float:
    spent = []
    work()
    for _ in range(_REPEATS):
        start = now()
        work()
        spent.append(now() - start)
    return max(float(np.min(spent)), 1e-9)


DEVICE = "cpu"
"""Of every part and of the limits, whatever the machine has beside it."""
STAGES = ("limits of the machine", "feature generation", "training and vectors", "exact search and index")


@dataclass(frozen=True)
class Rate:
    """What a part does in a second, and what the machine could do at best.

    Attributes:
        name: of the part.
        unit: what is counted.
        per_s: rows a second.
        limit: which limit of the machine binds: matrix product or memory bandwidth.
        limit_per_s: rows a second at that limit.
        note: what else is worth knowing.
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
    """The sizes, the machine's limits, the rates."""

    sizes: BenchSizes
    limits: MachineLimits
    rates: tuple[Rate, ...]

    def to_document(self) -> dict[str, Any]:
        """Returns the report as JSON can hold it."""
        rates = [{**asdict(rate), "limit_frac": rate.limit_frac} for rate in self.rates]
        return {"device": DEVICE, "sizes": asdict(self.sizes), "limits": asdict(self.limits), "rates": rates}


def run_bench(sizes: BenchSizes, now: Callable[[], float], stage_begins: Callable[[str], None] = lambda _: None) -> BenchReport:
    """Returns what this machine does. Everything is generated in memory and nothing is written.

    Args:
        sizes: how much of everything, and on how many threads.
        now: seconds of a clock that never goes back.
        stage_begins: told of each of STAGES when it begins.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(sizes.threads)
    try:
        stage_begins(STAGES[0])
        limits = measure_limits(now)
        rates = [_rate(timed, limits) for timed in _parts(sizes, now, stage_begins)]
    finally:
        torch.set_num_threads(before)
    return BenchReport(sizes, limits, tuple(rates))


def _parts(sizes: BenchSizes, now: Callable[[], float], stage_begins: Callable[[str], None]) -> Iterator[parts.Timed]:
    for stage, part in zip(STAGES[1:], (parts.feature_generation, parts.towers, parts.searches), strict=True):
        stage_begins(stage)
        yield from part(sizes, now)


def _rate(timed: parts.Timed, limits: MachineLimits) -> Rate:
    limit_per_s, limit = limits.rows_per_s(timed.flops, timed.bytes_moved)
    return Rate(timed.name, timed.unit, timed.rows / timed.seconds, limit, limit_per_s, timed.note)
