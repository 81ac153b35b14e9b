"""The limit that binds is the slower of the two."""

from __future__ import annotations

import math

from dssm_assets.bench.machine_limits import MachineLimits, measure_limits


def test_the_slower_limit_binds() -> None:
    limits = MachineLimits(gflops=10.0, gbytes=2.0)
    # 10e9 / 1e6 = 10,000 rows by products; 2e9 / 1e5 = 20,000 by memory.
    assert limits.rows_per_s(1e6, 1e5) == (10_000.0, "matrix product")
    assert limits.rows_per_s(1e5, 1e5) == (20_000.0, "memory bandwidth")
    assert limits.rows_per_s(0.0, 1e5) == (20_000.0, "memory bandwidth")
    assert limits.rows_per_s(1e6, 0.0) == (10_000.0, "matrix product")


def test_limits_follow_from_the_clock() -> None:
    ticks = iter(range(1000))
    # Every piece of work takes one second of this clock.
    limits = measure_limits(lambda: float(next(ticks)))
    assert math.isclose(limits.gflops, 2 * 1024**3 / 1e9)
    assert math.isclose(limits.gbytes, 2 * 2**28 / 1e9)
