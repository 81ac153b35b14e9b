"""The benchmark of this machine with tiny sizes: every part has a rate and the limit that binds."""

from __future__ import annotations

import pytest

from dssm_assets_tests.benchmarks import machine
from dssm_assets_tests.benchmarks.machine import Timed

TINY = "--rows 300 --samples 300 --users 40 --items 60 --batch-size 64 --corpus 300 --queries 20 --k 5 --index flat"


def test_every_part_has_a_rate_and_a_limit(capsys: pytest.CaptureFixture[str]) -> None:
    machine.main(TINY.split())
    lines = capsys.readouterr().out.splitlines()
    parts = ("feature generation, hashes", "feature generation, buckets", "training", "user vectors", "item vectors")
    assert [line[:28].rstrip() for line in lines[1:-2]] == [*parts, "exact search", "index search"]
    assert lines[-3].endswith("queries, Flat, recall 1.000")


def test_the_lower_limit_binds() -> None:
    limits = {"gflops": 10.0, "gbytes": 2.0}
    # 10e9 / 1e6 = 10,000 rows by products; 2e9 / 1e5 = 20,000 by memory.
    assert machine.limit_of(Timed("a", "rows", 1, 1.0, 1e6, 1e5), limits) == (10_000.0, "product")
    assert machine.limit_of(Timed("a", "rows", 1, 1.0, 1e5, 1e5), limits) == (20_000.0, "memory")
    assert machine.limit_of(Timed("a", "rows", 1, 1.0, 0.0, 1e5), limits) == (20_000.0, "memory")
