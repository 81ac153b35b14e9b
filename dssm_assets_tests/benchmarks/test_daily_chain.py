"""The whole chain on a small world under a memory limit: it completes, and its memory does not grow with the days."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pytest

from dssm_assets_tests.benchmarks.chain_steps import ChainStep, chain_steps, run_steps, write_chain
from dssm_assets_tests.benchmarks.daily_chain import chain_world
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
