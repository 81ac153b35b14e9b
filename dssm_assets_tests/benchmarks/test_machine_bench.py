"""The bench with tiny sizes: every part runs, and has a rate and the limit that binds."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
import torch

from dssm_assets.core.config.evaluation import IndexKind
from dssm_assets.core.errors import InputError
from dssm_assets_tests.benchmarks.machine import generated, parts
from dssm_assets_tests.benchmarks.machine.generated import BenchSizes
from dssm_assets_tests.benchmarks.machine.machine_bench import (
    STAGES,
    BenchReport,
    MachineLimits,
    Rate,
    measure_limits,
    run_bench,
)

SIZES = BenchSizes(
    rows=500, samples=400, users=50, items=80, corpus=300, queries=20, dims=8, k=10, index=IndexKind.FLAT, threads=1
)


@pytest.fixture(scope="module")
def report() -> BenchReport:
    return run_bench(SIZES, time.perf_counter)


def test_every_part_has_a_rate(report: BenchReport) -> None:
    assert [(rate.name, rate.unit) for rate in report.rates] == [
        ("feature generation, hashes", "rows"),
        ("feature generation, buckets", "rows"),
        ("training", "samples"),
        ("user vectors", "rows"),
        ("item vectors", "rows"),
        ("exact search", "queries"),
        ("index search", "queries"),
    ]
    assert all(rate.per_s > 0 and rate.limit_per_s > 0 for rate in report.rates)
    assert report.rates[-1].note == "Flat, recall 1.000"


def test_a_machine_with_a_gpu_is_measured_on_its_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without CUDA, creating a tensor on the GPU would fail."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    names = [timed.name for timed in parts.towers(SIZES, time.perf_counter)]
    assert names == ["training", "user vectors", "item vectors"]


def test_a_query_of_exact_search_needs_a_product_with_every_item(report: BenchReport) -> None:
    (exact,) = (rate for rate in report.rates if rate.name == "exact search")
    # 2 x 300 items x 8 dimensions = 4,800 operations; 300 x 8 x 4 / 20 + 10 x 12 = 600 bytes.
    expected = min(report.limits.gflops * 1e9 / 4800, report.limits.gbytes * 1e9 / 600)
    assert exact.limit_per_s == pytest.approx(expected)


def test_limit_frac_is_rate_over_limit() -> None:
    assert Rate("part", "rows", 50.0, "matrix product", 200.0, "").limit_frac == 0.25


def test_stages_are_reported_in_order() -> None:
    stages: list[str] = []
    run_bench(SIZES, time.perf_counter, stages.append)
    assert stages == list(STAGES)


def test_equal_seeds_generate_equal_data() -> None:
    assert generated.raw_rows(100, 3).equals(generated.raw_rows(100, 3))
    assert not generated.raw_rows(100, 3).equals(generated.raw_rows(100, 4))
    tables = generated.training_tables(SIZES, 3)
    assert all(tables[name].equals(table) for name, table in generated.training_tables(SIZES, 3).items())
    vectors = generated.unit_vectors(10, 4, 1)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1.0)


def test_every_impossible_size_is_named() -> None:
    with pytest.raises(InputError, match=r"(?s)bench, rows: expected at least 1, got 0.*bench, threads.*"):
        BenchSizes(rows=0, threads=0)
    with pytest.raises(InputError, match="bench, k: expected at most the corpus, 100"):
        BenchSizes(corpus=100, k=101)


def test_the_lower_limit_binds() -> None:
    limits = MachineLimits(gflops=10.0, gbytes=2.0)
    # 10e9 / 1e6 = 10,000 rows by products; 2e9 / 1e5 = 20,000 by memory.
    assert limits.rows_per_s(1e6, 1e5) == (10_000.0, "matrix product")
    assert limits.rows_per_s(1e5, 1e5) == (20_000.0, "memory bandwidth")
    assert limits.rows_per_s(0.0, 1e5) == (20_000.0, "memory bandwidth")
    assert limits.rows_per_s(1e6, 0.0) == (10_000.0, "matrix product")


def test_limits_follow_from_the_measured_time() -> None:
    ticks = iter(range(1000))
    # Each measured block takes one second of this clock.
    limits = measure_limits(lambda: float(next(ticks)))
    assert math.isclose(limits.gflops, 2 * 1024**3 / 1e9)
    assert math.isclose(limits.gbytes, 2 * 2**28 / 1e9)
