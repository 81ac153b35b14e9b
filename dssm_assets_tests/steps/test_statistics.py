"""Value counts of a day equal counting the wide samples, with a feature table per day and with one table for all days.

Users and items of a generated world change every day or never; on the second day every third user is unknown.
"""

from __future__ import annotations

import itertools
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from dssm_assets.core.errors import ProvenanceError
from dssm_assets.core.features.fg_tables import ITEM_FEATURES_FG, USER_FEATURES_FG
from dssm_assets.core.features_raw.raw_feature_tables import USER_ALL_FEATURE
from dssm_assets.core.samples.sample_tables import POSITIVE_SAMPLE
from dssm_assets.extras.spark.spark import SparkEngine
from dssm_assets.steps import sample, statistics
from dssm_assets.steps.workspace import Workspace, day_before, open_workspace
from dssm_assets.storage import tables as table_store
from dssm_assets.storage.engines.engine import Engine
from dssm_assets_tests import worlds
from dssm_assets_tests.benchmarks import our_path
from dssm_assets_tests.benchmarks.world import World
from dssm_assets_tests.benchmarks.world_features import load_world
from dssm_assets_tests.core.statistics.counting import count_categories, count_numbers
from dssm_assets_tests.extras.spark.cluster import requires_pyspark
from dssm_assets_tests.extras.spark.sessions import LocalSession
from dssm_assets_tests.wide_samples import read_wide_sample
from dssm_assets_tests.worlds import BuiltWorld, built_world

WORLD = World(rows=1_200, users=150, items=60, days=5)
DAYS = WORLD.log_days
COUNTS = {"numeric_value_counts": count_numbers, "category_value_counts": count_categories}


@pytest.fixture(scope="module", params=[True, False], ids=["tables of each day", "one table for all days"])
def workspace(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    folder = tmp_path_factory.mktemp("world")
    our_path.prepare(asdict(WORLD), str(folder), request.param)
    made = open_workspace(load_world(WORLD, folder, WORLD.days))
    profiles = made.need(USER_ALL_FEATURE.name, DAYS[1])
    table = made.tables.read(profiles)
    some = table.filter(pa.array(np.arange(table.num_rows) % 3 > 0))
    made.tables.write(USER_ALL_FEATURE, profiles.ds, some, inputs=profiles.inputs)
    steps = [sample.item_features_fg, sample.user_features_fg]
    for step in steps:
        list(step(made, [WORLD.day_before_log, *DAYS]))
    for daily in (sample.sample_fg, sample.positive_sample, *(getattr(statistics, asset) for asset in COUNTS)):
        list(daily(made, DAYS))
    return made


@pytest.mark.parametrize("asset", COUNTS)
def test_counts_equal_those_of_the_wide_samples(workspace: Workspace, asset: str) -> None:
    for ds in DAYS:
        expected = COUNTS[asset](read_wide_sample(workspace, "positive_sample", ds), workspace.fg_spec.features)
        assert workspace.tables.read(workspace.need(asset, ds)).equals(expected), ds


def test_counting_refuses_a_feature_table_written_again(workspace: Workspace) -> None:
    existing = workspace.need(USER_FEATURES_FG.name, day_before(DAYS[-1]))
    table = workspace.tables.read(existing)
    workspace.tables.write(USER_FEATURES_FG, existing.ds, table.slice(1), inputs=existing.inputs)
    with pytest.raises(
        ProvenanceError,
        match=f"sample_fg/{DAYS[-1]}, input {existing.key}: expected the digest that it was built from, {existing.digest[:12]}",
    ):
        list(statistics.numeric_value_counts(workspace, [DAYS[-1]]))
    workspace.tables.partitions.publish_shared(existing, existing.ds)


FIRST, DS = worlds.DAYS[0], worlds.DAYS[3]
ROW_GROUP = 4

pytestmark = requires_pyspark

world = pytest.fixture(scope="module")(built_world)


@pytest.fixture
def small_row_groups(world: BuiltWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A workspace where the samples of a day, and the feature tables that they refer to, have several row groups."""
    made = open_workspace(world.copy(tmp_path / "copy"))
    monkeypatch.setattr(table_store, "ROW_GROUP_ROWS", ROW_GROUP)
    for spec in (USER_FEATURES_FG, ITEM_FEATURES_FG):
        before = made.need(spec.name, day_before(DS))
        assert before.rows > 2 * ROW_GROUP
        made.tables.write(spec, before.ds, made.tables.read(before), inputs=before.inputs)
    list(sample.sample_fg(made, [DS]))
    list(sample.positive_sample(made, [DS]))
    assert made.need(POSITIVE_SAMPLE.name, DS).rows > 2 * ROW_GROUP
    return made


@pytest.mark.parametrize("asset", ["numeric_value_counts", "category_value_counts"])
def test_counts_on_workers_equal_counts_in_one_process(small_row_groups: Workspace, asset: str) -> None:
    step = getattr(statistics, asset)
    on_workers = replace(small_row_groups, engine=SparkEngine(small_row_groups.tables, LocalSession()))
    expected = list(step(small_row_groups, [FIRST, DS]))
    assert list(step(on_workers, [FIRST, DS])) == expected
    assert min(result.manifest.rows for result in expected) > 0


@pytest.mark.parametrize("is_distributed", [False, True])
def test_reports_are_in_row_order_and_have_the_wanted_columns(small_row_groups: Workspace, *, is_distributed: bool) -> None:
    source = small_row_groups.need(POSITIVE_SAMPLE.name, DS)
    engine: Engine = SparkEngine(small_row_groups.tables, LocalSession()) if is_distributed else small_row_groups.engine
    found = engine.reports(source, lambda table, start: (start, table.column_names, table.column(0).to_pylist()), ["user_row"])
    assert [start for start, _, _ in found] == list(itertools.accumulate((len(part) for *_, part in found[:-1]), initial=0))
    assert len(found) == -(-source.rows // ROW_GROUP)
    assert all(names == ["user_row"] for _, names, _ in found)
    rows = small_row_groups.tables.read(source, ["user_row"]).column(0).to_pylist()
    assert [row for _, _, part in found for row in part] == rows
