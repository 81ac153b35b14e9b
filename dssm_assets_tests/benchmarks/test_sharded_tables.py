"""The benchmark of sharded tables runs, and each of two processes has half of the memory."""

from __future__ import annotations

import pytest

from dssm_assets.core.config.training import EmbeddingOptimiser
from dssm_assets_tests.benchmarks.sharded_tables import measure_processes


@pytest.mark.slow
def test_each_of_two_processes_has_half_of_the_memory() -> None:
    (single,) = measure_processes(2_000_000, 16, EmbeddingOptimiser.ADAM, 1)
    for half in measure_processes(2_000_000, 16, EmbeddingOptimiser.ADAM, 2):
        assert half["own_mib"] == pytest.approx(single["own_mib"] / 2, rel=0.25)
