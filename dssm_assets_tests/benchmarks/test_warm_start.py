"""The warm start benchmark on the tiny world: both ways with every number of epochs, scored as in production."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dssm_assets.core.file_names import ModelFile
from dssm_assets.steps.workspace import day_before, open_workspace
from dssm_assets_tests import worlds
from dssm_assets_tests.benchmarks.warm_start import SCRATCH, WARM, Row, measure, render


def test_warm_start_benchmark_fits_and_scores_every_way(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> None:
    loaded = worlds.built_world(tmp_path_factory).copy(tmp_path / "world")
    first = day_before(worlds.EVALUATION_DAY)
    worlds.run_steps(loaded, worlds.WINDOWED, [first])
    workspace = open_workspace(loaded)
    before = workspace.need("dssm_model", first).digest
    rows = measure(loaded, [first, worlds.EVALUATION_DAY], [1, 10])
    assert [(row.way, row.epochs) for row in rows] == [(SCRATCH, 10), (WARM, 10), (SCRATCH, 1), (WARM, 1)]
    assert min(row.cpu_s for row in rows) > 0
    assert len({row.truth_count for row in rows}) == 1
    # In the tiny world ten epochs from scratch recall everything.
    assert rows[0].hits == rows[0].truth_count > 0
    report = json.loads(workspace.artifacts.read_bytes(workspace.need("dssm_model", worlds.EVALUATION_DAY), ModelFile.REPORT))
    assert report["warm_start"]["from"] == f"dssm_model/{first}"
    assert workspace.need("dssm_model", first).digest == before


def test_warm_start_table_by_hand() -> None:
    rows = [Row(SCRATCH, 6, 20.0, 30, 100), Row(WARM, 2, 7.0, 32, 100)]
    assert render(rows, 200).splitlines()[2:] == [
        "| from scratch | 6 | 20.0 | 1.00x | 0.3000 | +0.0000 |",
        "| warm start | 2 | 7.0 | 0.35x | 0.3200 | +0.0200 |",
    ]
