"""The whole chain on a small world under a memory limit: it completes, and its memory does not grow with the days."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from dssm_assets_tests.benchmarks.chain_steps import ChainStep, chain_steps, run_steps, write_chain
from dssm_assets_tests.benchmarks.daily_chain import ChainReport, StepCost, chain_world, compare, exponent, measure, render
from dssm_assets_tests.benchmarks.process_cost import Limited, run_limited
from dssm_assets_tests.benchmarks.world import World

LIMIT_MIB = 768
"""Libraries take 500 MiB of it, torch the most."""
ROWS_A_DAY = 20_000
STATISTIC_DAYS = (1, 2, 3)
"""Rolling states hold the pairs and preferences of the longest of these windows: from the fourth day on they are as large as later."""
WINDOWS = (4, 16)
"""Both with full groups of short days and whole states. Measured: 172 MiB with 2 days, then 182, 180 and 182 with 4, 8 and 24."""
MAX_GROWTH = 1.08
"""Of 182 MiB, with 12 more days. Holding the window as indices, as train_samples writes it, would give 1.3."""
TRAINED = ("dssm_model", "item_vectors", "user_vectors")
"""Steps that need towers. torch and faiss dominate the memory of these and the next, so they are left out of the comparison of days."""
SCORED = ("channel_weights", "hit_counts", "hit_rate_detail", "total_hit_rate", "experiments")
"""Steps that search vectors and hold fitted baselines and channels."""
SERVED = ("serving_bundle",)
"""It loads the most libraries. These groups run in processes of their own, as every step does in the benchmark."""
TRAINED_MIB = SERVED_MIB = 1024
"""faiss reserves about 130 MiB of address space per thread and search, which the limit counts although it is never touched."""
SCORED_MIB = 1280
"""EASE inverts a matrix of its items squared: some 220 MiB more, whatever the size of the log."""


def _world(window: int) -> World:
    return chain_world(ROWS_A_DAY * window, window, users=10_000, items=4_000)


def _run(folder: Path, window: int, steps: Sequence[ChainStep], limit_mib: int = LIMIT_MIB) -> Limited:
    return run_limited(
        run_steps, limit_mib, world=asdict(_world(window)), folder=str(folder), steps=[asdict(step) for step in steps]
    )


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_chain_stays_under_a_small_limit_and_its_memory_does_not_grow_with_the_days(tmp_path: Path) -> None:
    tables = [step for step in chain_steps() if step.name not in (*TRAINED, *SCORED, *SERVED)]
    seen = {}
    for window in WINDOWS:
        folder = tmp_path / str(window)
        write_chain(asdict(_world(window)), str(folder), window, "128MB", statistic_days=STATISTIC_DAYS)
        seen[window] = _run(folder, window, tables)
    few, many = WINDOWS
    assert seen[many].resident_mib <= MAX_GROWTH * seen[few].resident_mib, seen
    folder = tmp_path / str(many)
    trained = _run(folder, many, [step for step in chain_steps() if step.name in TRAINED], TRAINED_MIB)
    scored = _run(folder, many, [step for step in chain_steps() if step.name in SCORED], SCORED_MIB)
    served = _run(folder, many, [step for step in chain_steps() if step.name in SERVED], SERVED_MIB)
    rows = {cost["name"]: cost["rows"] for run in (seen[many], trained, scored, served) for cost in run.result}
    assert rows["behavior_table"] == (many + 1) * ROWS_A_DAY
    assert rows["train_samples"] == many * ROWS_A_DAY
    assert rows["total_hit_rate"] > 0
    assert "serving_bundle" in rows


def _report(rows: int, **cpu_s: float) -> ChainReport:
    steps = tuple(StepCost(name, 1, rows, 1_000_000, cpu, 300.0, 200.0) for name, cpu in cpu_s.items())
    return ChainReport(chain_world(rows, 4), 4, 1024, steps)


def test_exponent_is_one_for_linear_and_two_for_quadratic_growth() -> None:
    assert exponent([1, 10, 30], [2.0, 20.0, 60.0]) == pytest.approx(1.0)
    assert exponent([1, 10], [3.0, 300.0]) == pytest.approx(2.0)


def test_growth_table_has_every_step_and_its_exponent() -> None:
    table = compare([_report(1000, fg=2.0, quick=0.1), _report(10_000, fg=20.0, quick=0.2)])
    assert "| fg | 2.0 | 20.0 | 1.00 | 300 |" in table
    assert "| quick | 0.1 | 0.2 |  | 300 |" in table  # too quick for its growth to mean anything
    assert "| CPU s | 0.001M rows | 0.01M rows | exponent | most MiB counted |" in table


def test_report_round_trips_through_json_and_its_table_has_rows_per_second() -> None:
    report = _report(1000, fg=2.0)
    assert ChainReport.from_json(report.to_json()) == report
    assert report.rows == 1000
    assert "| fg | 1 | 1,000 | 2.0 | 500 | 200 | 300 | 1.0 |" in render(report)


def test_every_step_runs_once_in_its_own_process(tmp_path: Path) -> None:
    ran: list[str] = []

    def run(work: Any, limit: int | None, /, **arguments: Any) -> Limited:
        if work.__name__ == "write_chain":
            return Limited(None, 0.0, 0.0)
        ran.append(arguments["steps"][0]["name"])
        return Limited([{"name": ran[-1], "days": 1, "rows": 10, "bytes": 5, "cpu_s": 1.0}], 50.0, 40.0)

    steps = [ChainStep("steps.fg", name, False) for name in ("one", "two")]
    report = measure(chain_world(1000, 4), tmp_path, window=4, limit_mib=100, run=run, steps=steps)
    assert ran == [step.name for step in report.steps] == ["one", "two"]
