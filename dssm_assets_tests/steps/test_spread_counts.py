"""Value counts that are made by row group on workers elsewhere are those of a day counted in one process."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from dssm_assets.core.features.specs import ITEM_FEATURES_FG, USER_FEATURES_FG
from dssm_assets.core.samples.specs import POSITIVE_SAMPLE
from dssm_assets.steps import sample, statistics
from dssm_assets.steps.workspace import Workspace, day_before, open_workspace
from dssm_assets.storage import table_store
from dssm_assets.storage.engine import Engine
from dssm_assets.storage.spark_engine import SparkEngine
from dssm_assets_tests import worlds
from dssm_assets_tests.spark.cluster import requires_pyspark
from dssm_assets_tests.spark.sessions import SessionHere
from dssm_assets_tests.worlds import BuiltWorld, built_world

FIRST, DS = worlds.DAYS[0], worlds.DAYS[3]
ROW_GROUP = 4

pytestmark = requires_pyspark

world = pytest.fixture(scope="module")(built_world)


@pytest.fixture
def workspace(world: BuiltWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A world of which a day's samples and the features that they point into lie in several row groups."""
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
def test_counts_by_row_group_are_those_of_the_day(workspace: Workspace, asset: str) -> None:
    step = getattr(statistics, asset)
    elsewhere = replace(workspace, engine=SparkEngine(workspace.tables, SessionHere()))
    expected = list(step(workspace, [FIRST, DS]))
    assert list(step(elsewhere, [FIRST, DS])) == expected
    assert min(result.manifest.rows for result in expected) > 0


@pytest.mark.parametrize("is_spread", [False, True])
def test_reports_come_in_the_order_of_the_rows_of_the_wanted_columns(workspace: Workspace, *, is_spread: bool) -> None:
    source = workspace.need(POSITIVE_SAMPLE.name, DS)
    engine: Engine = SparkEngine(workspace.tables, SessionHere()) if is_spread else workspace.engine
    found = engine.reports(source, lambda table, start: (start, table.column_names, table.column(0).to_pylist()), ["user_row"])
    assert [start for start, _, _ in found] == list(itertools.accumulate((len(part) for *_, part in found[:-1]), initial=0))
    assert len(found) == -(-source.rows // ROW_GROUP)
    assert all(names == ["user_row"] for _, names, _ in found)
    rows = workspace.tables.read(source, ["user_row"]).column(0).to_pylist()
    assert [row for _, _, part in found for row in part] == rows
