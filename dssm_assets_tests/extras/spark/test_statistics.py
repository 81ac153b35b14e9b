"""Value counts and reports on Spark's workers equal those of one process."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from dssm_assets.core.features.fg_tables import ITEM_FEATURES_FG, USER_FEATURES_FG
from dssm_assets.core.samples.sample_tables import POSITIVE_SAMPLE
from dssm_assets.extras.spark.spark import SparkEngine
from dssm_assets.steps import sample, statistics
from dssm_assets.steps.workspace import Workspace, day_before, open_workspace
from dssm_assets.storage import tables as table_store
from dssm_assets.storage.engines.engine import Engine
from dssm_assets_tests import worlds
from dssm_assets_tests.extras.spark.cluster import requires_pyspark
from dssm_assets_tests.extras.spark.sessions import LocalSession
from dssm_assets_tests.worlds import BuiltWorld, built_world

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
