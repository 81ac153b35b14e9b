"""The measurement of dealt-out tables runs, and finds half of the memory in each of two processes."""

from __future__ import annotations

import pytest

from dssm_assets.core.config.training import EmbeddingOptimiser
from dssm_assets_tests.benchmarks.sharded_tables import measured


@pytest.mark.slow
def test_each_of_two_processes_holds_half() -> None:
    (alone,) = measured(2_000_000, 16, EmbeddingOptimiser.ADAM, 1)
    for half in measured(2_000_000, 16, EmbeddingOptimiser.ADAM, 2):
        assert half["own_mib"] == pytest.approx(alone["own_mib"] / 2, rel=0.25)
