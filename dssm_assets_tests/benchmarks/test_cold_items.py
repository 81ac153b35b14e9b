"""The benchmark of cold items over a tiny world: what is held out, what is counted."""

from __future__ import annotations

import pytest

from dssm_assets.steps.workspace import open_workspace
from dssm_assets_tests import worlds
from dssm_assets_tests.benchmarks.cold_items import measure_day
from dssm_assets_tests.worlds import EVALUATION_DAY


def test_held_out_items_are_the_cold_ones_and_their_pairs_are_counted(tmp_path_factory: pytest.TempPathFactory) -> None:
    world = worlds.built_world(tmp_path_factory).copy(tmp_path_factory.mktemp("cold") / "world", {})
    workspace = open_workspace(world)
    changes = {"training.epochs": 1, "model.num_sample": 8}
    hits = measure_day(workspace, EVALUATION_DAY, 0.5, 1, changes, k=1)
    assert hits.held_out_pairs == hits.pairs > 0  # every other item has events
    assert hits.candidates == 10  # of 20 items with events
    assert 0 <= hits.category <= hits.pairs
    assert 0 <= hits.model < hits.pairs
    everything = measure_day(workspace, EVALUATION_DAY, 0.5, 1, changes, k=10)
    assert everything.model == everything.category == everything.pairs == hits.pairs
