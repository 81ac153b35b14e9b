"""Samples that are placed piece by piece on workers elsewhere are those of a day placed at once in this process."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from dssm_assets.core import columns as col
from dssm_assets.core.features.specs import USER_FEATURES_FG
from dssm_assets.core.samples.specs import SAMPLE, SAMPLE_FG
from dssm_assets.steps import eve_rows, sample
from dssm_assets.steps.workspace import StepResult, Workspace, day_before, open_workspace
from dssm_assets.storage import layout, table_store
from dssm_assets.storage.spark_engine import SparkEngine
from dssm_assets.storage.table_store import TableStore
from dssm_assets_tests import worlds
from dssm_assets_tests.spark.cluster import requires_pyspark
from dssm_assets_tests.spark.sessions import SessionHere
from dssm_assets_tests.worlds import BuiltWorld, built_world

DS = worlds.DAYS[3]
ROW_GROUP = 7

world = pytest.fixture(scope="module")(built_world)


@pytest.fixture
def workspace(world: BuiltWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A world of which a day's samples lie in several row groups."""
    made = open_workspace(world.copy(tmp_path / "copy"))
    monkeypatch.setattr(table_store, "ROW_GROUP_ROWS", ROW_GROUP)
    monkeypatch.setattr(eve_rows, "_OF_THIS_PROCESS", {})
    for spec in (SAMPLE, SAMPLE_FG):
        before = made.need(spec.name, DS)
        made.tables.write(spec, DS, made.tables.read(before), inputs=before.inputs)
    return made


def in_pieces(workspace: Workspace) -> Workspace:
    """Returns the workspace with the engine that sends a row group to a worker each."""
    return replace(workspace, engine=SparkEngine(workspace.tables, SessionHere()))


@requires_pyspark
def test_a_day_placed_in_pieces_is_the_day_placed_at_once(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    assert workspace.need("sample", DS).rows > 2 * ROW_GROUP
    expected = list(sample.sample_fg(workspace, [*worlds.DAYS[:1], DS]))
    original, reads = TableStore.read, []
    monkeypatch.setattr(
        TableStore, "read", lambda self, at, *how, **named: reads.append(at.key) or original(self, at, *how, **named)
    )
    assert list(sample.sample_fg(in_pieces(workspace), [*worlds.DAYS[:1], DS])) == expected
    eve = day_before(DS)
    assert sorted(reads) == [f"item_features_fg/{eve}", f"user_features_fg/{eve}"], "once, for all pieces"
    leak, parity = expected[1].checks
    assert (leak.is_passed, parity.facts["golden_rows"]) == (True, 5)


@requires_pyspark
def test_positives_chosen_in_pieces_are_those_chosen_in_a_stream(workspace: Workspace) -> None:
    (expected,) = sample.positive_sample(workspace, [DS])
    placed = workspace.tables.read(workspace.need("sample_fg", DS))
    assert workspace.tables.read(expected.manifest).equals(placed.filter(pc.equal(placed.column(col.LABEL), 1)))
    assert 0 < expected.manifest.rows < placed.num_rows
    assert list(sample.positive_sample(in_pieces(workspace), [DS])) == [expected]


def test_a_day_of_positives_alone_is_the_very_table(workspace: Workspace) -> None:
    standing = workspace.need("sample_fg", DS)
    table = workspace.tables.read(standing)
    placed = workspace.tables.write(SAMPLE_FG, DS, table.filter(pc.equal(table.column(col.LABEL), 1)), inputs=standing.inputs)
    (made,) = sample.positive_sample(replace(workspace, engine=None), [DS])  # type: ignore[arg-type]
    assert made.manifest.digest == placed.digest
    assert made.manifest.inputs == {placed.key: placed.digest}
    workspace.tables.partitions.verify(made.manifest)


@requires_pyspark
@pytest.mark.parametrize("is_in_pieces", [False, True], ids=["at once", "in pieces"])
def test_what_leaks_takes_no_partition_s_place(workspace: Workspace, *, is_in_pieces: bool) -> None:
    eve = workspace.need(USER_FEATURES_FG.name, day_before(DS))
    table = workspace.tables.read(eve)
    # The first three users' features are of the day itself; the samples of those three leak.
    dates = pa.array([DS if row < 3 else eve.ds for row in range(table.num_rows)])
    place = table.schema.get_field_index(col.FEATURE_DATE)
    workspace.tables.write(USER_FEATURES_FG, eve.ds, table.set_column(place, col.FEATURE_DATE, dates), inputs=eve.inputs)
    users = table.column(col.USER_ID).to_pylist()[:3]
    leaking = sum(user in users for user in workspace.tables.read(workspace.need("sample", DS)).column(col.USER_ID).to_pylist())
    assert leaking > 0
    engine = in_pieces(workspace) if is_in_pieces else workspace

    def place_again() -> StepResult:
        (result,) = sample.sample_fg(engine, [DS])
        leak = result.checks[0]
        assert (leak.is_passed, leak.facts["leaking_rows"], leak.facts["newest_user_feature_date"]) == (False, leaking, DS)
        return result

    standing = workspace.need("sample_fg", DS)
    assert place_again().manifest == workspace.need("sample_fg", DS) == standing
    Path(layout.manifest_path(workspace.tables.partitions.root, "sample_fg", DS)).unlink()
    assert place_again().manifest == workspace.need("sample_fg", DS)
    assert workspace.need("sample_fg", DS).inputs[eve.key] != standing.inputs[eve.key]
