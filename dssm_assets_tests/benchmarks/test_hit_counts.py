"""The benchmark of hits runs and prints a row per scorer."""

from __future__ import annotations

import pytest

from dssm_assets.core.evaluation.baselines.registry import extra_baselines
from dssm_assets.core.evaluation.evaluation_tables import CATEGORY_POPULARITY, MERGED
from dssm_assets.core.evaluation.labels import SCORERS
from dssm_assets_tests.benchmarks import hit_counts


def test_hit_counts_benchmark_has_a_row_per_scorer(capsys: pytest.CaptureFixture[str]) -> None:
    hit_counts.main(["--size", "30", "50", "2", "4", "9", "-k", "10"])
    printed = capsys.readouterr().out
    assert "30 users, 50 items" in printed
    for name, label in SCORERS.items():
        is_left_out = name in {*extra_baselines(), MERGED, CATEGORY_POPULARITY}  # the items have no category
        assert (label.name in printed) is not is_left_out
