"""Value counts of a day equal counting the wide samples, with a feature table per day and with one table for all days.

Users and items of a generated world change every day or never; on the second day every third user is unknown.
"""

from __future__ import annotations

from typing import Any

import pytest

from dssm_assets.steps import sample, statistics
from dssm_assets.steps.workspace import Workspace
from dssm_assets_tests.benchmarks.world import World
from dssm_assets_tests.core.statistics.counting import count_categories, count_numbers
from dssm_assets_tests.steps import our_path
from dssm_assets_tests.wide_samples import read_wide_sample

WORLD = World(rows=1_200, users=150, items=60, days=5)
DAYS = WORLD.log_days
COUNTS = {"numeric_value_counts": count_numbers, "category_value_counts": count_categories}


@pytest.fixture(scope="module", params=[True, False], ids=["tables of each day", "one table for all days"])
def workspace(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    made = our_path.prepare(WORLD, tmp_path_factory.mktemp("world"), request.param)
    for step in (sample.item_features_fg, sample.user_features_fg):
        list(step(made, [WORLD.day_before_log, *DAYS]))
    for daily in (sample.sample_fg, sample.positive_sample, *(getattr(statistics, asset) for asset in COUNTS)):
        list(daily(made, DAYS))
    return made


@pytest.mark.parametrize("asset", COUNTS)
def test_counts_equal_those_of_the_wide_samples(workspace: Workspace, asset: str) -> None:
    for ds in DAYS:
        expected = COUNTS[asset](read_wide_sample(workspace, "positive_sample", ds), workspace.fg_spec.features)
        assert workspace.tables.read(workspace.need(asset, ds)).equals(expected), ds
