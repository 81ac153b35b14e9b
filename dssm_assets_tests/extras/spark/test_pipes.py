"""Assets whose steps run as Spark jobs and report through Dagster Pipes: on a local master, errors on a real cluster."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pyarrow as pa
import pytest

from dssm_assets.core.errors import CheckFailedError, SubmittedJobError
from dssm_assets.core.features.fg_tables import USER_FEATURES_FG
from dssm_assets.core.features_raw.raw_feature_tables import USER_ALL_FEATURE
from dssm_assets.steps.workspace import open_workspace
from dssm_assets_tests import worlds
from dssm_assets_tests.extras.spark.cluster import Cluster, requires_pyspark, settings_of
from dssm_assets_tests.extras.spark.comparison import assert_same_rows
from dssm_assets_tests.extras.spark.steps import land_sources, run_steps
from dssm_assets_tests.programs import find_program
from dssm_assets_tests.worlds import BuiltWorld, built_world

pytestmark = requires_pyspark

DAYS = worlds.DAYS[:2]

world = pytest.fixture(scope="module")(built_world)


def test_a_run_has_the_log_lines_metadata_and_checks_of_its_job(tmp_path: Path) -> None:
    find_program("java")
    here = land_sources(worlds.write_world(tmp_path / "here"), DAYS)
    run_steps(here, dict.fromkeys(("behavior", "user_history", "user_history_fg"), DAYS))
    loaded = worlds.write_world(tmp_path / "there", settings_of("local[1]"))
    run_steps(land_sources(loaded, DAYS), dict.fromkeys(("behavior", "user_history"), DAYS))
    instance, asset = dg.DagsterInstance.ephemeral(), dg.AssetKey("user_history_fg")
    worlds.materialize(loaded, ["user_history_fg"], DAYS, instance)

    (run,) = instance.get_runs()
    lines = [record.user_message for record in instance.all_logs(run.run_id)]
    assert any("user_history_fg on Spark" in line and "local[1]" in line for line in lines)
    assert len([line for line in lines if line.startswith("user_history_fg/") and "12 rows in" in line]) == len(DAYS)

    wanted = dg.AssetRecordsFilter(asset_key=asset, asset_partitions=DAYS)
    records = instance.fetch_materializations(wanted, limit=10, ascending=True).records
    made = {record.partition_key: record.asset_materialization.metadata for record in records if record.asset_materialization}
    assert sorted(made) == DAYS
    there = open_workspace(loaded)
    for ds, metadata in made.items():
        expected, stored = here.need("user_history_fg", ds), there.need("user_history_fg", ds)
        assert metadata["digest"].value == stored.digest
        assert metadata["dagster/row_count"].value == stored.rows == 12
        assert metadata["features"].value == 2
        assert metadata["seconds"].value > 0
        assert "inputs" not in metadata or metadata["inputs"].value == dict(stored.inputs)
        assert stored.inputs.keys() == expected.inputs.keys()
        assert_same_rows(here.tables.read(expected), there.tables.read(stored), expected.key)
    assert ["inputs" in made[ds] for ds in DAYS] == [ds == DAYS[-1] for ds in DAYS], "long values are told once a run"
    logged = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    (check,) = [record.dagster_event.asset_check_evaluation_data for record in logged if record.dagster_event]
    assert (check.check_name, check.passed, check.metadata["golden_rows"].value) == ("fg_parity", True, 1)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_error_of_a_worker_is_the_error_of_the_run(world: BuiltWorld, cluster: Cluster, tmp_path: Path) -> None:
    loaded = world.copy(tmp_path / "copy", cluster.settings())
    workspace = open_workspace(loaded)
    before, existing = workspace.need("user_all_feature", DAYS[0]), workspace.need("user_features_fg", DAYS[0])
    table = workspace.tables.read(before)
    nested = pa.array([{"name": "a"}] * table.num_rows)
    table = table.set_column(table.schema.get_field_index("city"), "city", nested)
    workspace.tables.write(USER_ALL_FEATURE, DAYS[0], table, inputs=before.inputs, facts=before.facts)
    with pytest.raises(
        SubmittedJobError, match=r"^feature city, input user:city: expected a column of texts, numbers, booleans or times, got"
    ):
        worlds.materialize(loaded, ["user_features_fg"], DAYS[:1])
    assert workspace.need("user_features_fg", DAYS[0]) == existing


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_leak_found_by_workers_fails_the_run_and_keeps_the_partition(
    world: BuiltWorld, cluster: Cluster, tmp_path: Path
) -> None:
    loaded = world.copy(tmp_path / "copy", cluster.settings())
    workspace = open_workspace(loaded)
    previous, existing = workspace.need("user_features_fg", DAYS[0]), workspace.need("sample_fg", DAYS[1])
    table = workspace.tables.read(previous)
    index = table.schema.get_field_index("feature_date")
    late = table.set_column(index, "feature_date", pa.repeat(DAYS[1], table.num_rows))
    workspace.tables.write(USER_FEATURES_FG, previous.ds, late, inputs=previous.inputs)
    message = rf"^check no_leak of sample_fg: {DAYS[1]}: {existing.rows} of {existing.rows} rows have features newer than {previous.ds}"
    with pytest.raises(CheckFailedError, match=message):
        worlds.materialize(loaded, ["sample_fg", "positive_sample"], DAYS[1:])
    assert workspace.need("sample_fg", DAYS[1]) == existing
