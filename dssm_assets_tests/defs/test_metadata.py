"""What an asset tells Dagster: rows, columns with their meaning, where, how long; and values Dagster can store."""

import dagster as dg
import numpy as np
import pytest

from dssm_assets.defs.asset_table import all_rows
from dssm_assets.defs.metadata import partition_metadata, to_metadata_value
from dssm_assets.steps.workspace import StepResult, open_workspace
from dssm_assets.storage.manifest import Column, Manifest, StoredFile
from dssm_assets_tests import worlds
from dssm_assets_tests.worlds import EVALUATION_DAY

ARTIFACTS = {"training_config", "train_samples", "dssm_model"}
ROWS = [row for row in all_rows() if row.name not in worlds.PUBLISHED]
NAMES = [row.name for row in ROWS]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return worlds.built_world(tmp_path_factory)


def materializations(world, name):
    """Returns day -> the metadata of its materialization."""
    found = world.instance.fetch_materializations(dg.AssetKey(name), limit=100).records
    return {record.partition_key: record.asset_materialization.metadata for record in found}


def _entries_alike(kind):
    # Parquet calls the entries of a list `element`, Arrow in memory `item`.
    return kind.replace("<element: ", "<item: ")


def days_of(name):
    return worlds.DAYS if name in worlds.DAILY else [worlds.EVALUATION_DAY]


@pytest.mark.parametrize("name", NAMES)
def test_each_day_has_its_own_figures(world, name):
    told = materializations(world, name)
    assert sorted(told) == days_of(name)
    for ds, metadata in told.items():
        manifest = world.workspace.need(name, ds)
        assert metadata["dagster/row_count"].value == manifest.rows
        assert metadata["dagster/uri"].value == f"{world.loaded.root}/{name}/ds={ds}"
        assert metadata["digest"].value == manifest.digest
        assert metadata["bytes"].value == sum(file.bytes for file in manifest.files) > 0
        seconds = metadata["seconds"].value
        assert 0 <= seconds < 60
        assert (metadata["rows_per_s"].value > 0) == (manifest.rows > 0)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ARTIFACTS])
def test_every_column_of_every_table_has_a_type_and_a_meaning(world, name):
    for ds, metadata in materializations(world, name).items():
        columns = metadata["dagster/column_schema"].schema.columns
        stored = world.workspace.tables.open(world.workspace.need(name, ds)).schema
        told_types = [(column.name, _entries_alike(column.type)) for column in columns]
        assert told_types == [(field.name, _entries_alike(str(field.type))) for field in stored]
        assert [column.name for column in columns if not (column.description or "").strip()] == []


def test_the_inputs_are_told_with_their_digests(world):
    told = materializations(world, "sample_fg")["2024-01-05"]["inputs"].value
    workspace = world.workspace
    assert told == {
        "item_features_fg/2024-01-04": workspace.need("item_features_fg", "2024-01-04").digest,
        "sample/2024-01-05": workspace.need("sample", "2024-01-05").digest,
        "user_features_fg/2024-01-04": workspace.need("user_features_fg", "2024-01-04").digest,
    }


def test_a_range_of_days_is_one_run_and_a_window_is_one_run(world):
    runs = world.instance.get_runs()
    assert [run.status for run in runs] == [dg.DagsterRunStatus.SUCCESS] * 2
    daily = world.instance.fetch_materializations(dg.AssetKey("sample"), limit=100).records
    assert len({record.run_id for record in daily}) == 1
    assert len(daily) == len(worlds.DAYS)


def test_the_report_and_the_loss_curve_are_readable_in_the_ui(world):
    report = materializations(world, "total_hit_rate")[worlds.EVALUATION_DAY]["report"]
    assert isinstance(report, dg.MarkdownMetadataValue)
    assert "popularity" in report.value
    curve = materializations(world, "dssm_model")[worlds.EVALUATION_DAY]["loss_curve"]
    assert curve.value.startswith("![loss_curve](data:image/png;base64,iVBOR")


def test_the_headline_figures_are_plain_numbers_the_ui_can_plot(world):
    told = materializations(world, "total_hit_rate")[worlds.EVALUATION_DAY]
    assert told["hit_rate@10"] == dg.FloatMetadataValue(1.0)
    assert told["hit_rate@10 of popularity"].value == pytest.approx(2 / 3)


def test_checks_are_recorded_as_passed(world):
    for row in ROWS:
        for check in row.checks:
            key = dg.AssetCheckKey(dg.AssetKey(row.name), check.name)
            evaluation = world.instance.get_latest_asset_check_evaluation_record(key).event.asset_check_evaluation
            assert evaluation.passed, key
            assert evaluation.description.startswith("2024-01-12: "), key


@pytest.mark.parametrize(
    ("value", "expected", "kind"),
    [
        (np.int64(3), 3, int),
        (np.float32(0.5), 0.5, float),
        (np.bool_(True), True, bool),
        (7, 7, int),
        ("text", "text", str),
    ],
)
def test_scalars_become_plain(value, expected, kind):
    assert to_metadata_value(value) == expected
    assert type(to_metadata_value(value)) is kind


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"a": np.int64(1), "b": "x"}, {"a": 1, "b": "x"}),
        ([np.float64(0.25), None], [0.25, None]),
        (("x", "y"), ["x", "y"]),
        ({"days": ["2024-01-01"], "inner": {"n": np.int32(2)}}, {"days": ["2024-01-01"], "inner": {"n": 2}}),
        ([[np.int64(1)], {"a": (np.int64(2),)}], [[1], {"a": [2]}]),
    ],
)
def test_mappings_and_lists_become_json_however_deep(value, expected):
    made = to_metadata_value(value)
    assert isinstance(made, dg.JsonMetadataValue)
    assert made.value == expected


def test_figures_of_a_step_stand_beside_the_standing_ones(tmp_path):
    workspace = open_workspace(worlds.write_config(tmp_path))
    file = StoredFile("part.parquet", "part-1.parquet", 20, "1" * 64, 10)
    manifest = Manifest("sample", "2024-01-02", (file,), (Column("user_id", "string", "Who."),))
    result = StepResult(manifest, {"kept": np.int64(4)}, report_markdown="# Report", images={"curve": b"\x89PNG"})
    told = partition_metadata(result, workspace, 0.5)
    assert (told["dagster/row_count"], told["seconds"], told["rows_per_s"], told["bytes"], told["kept"]) == (
        10,
        0.5,
        20.0,
        20,
        4,
    )
    assert told["report"] == dg.MetadataValue.md("# Report")
    assert told["curve"].value == "![curve](data:image/png;base64,iVBORw==)"
    assert "inputs" not in told


def test_no_time_at_all_is_no_rate(tmp_path):
    workspace = open_workspace(worlds.write_config(tmp_path))
    assert partition_metadata(StepResult(Manifest("sample", "2024-01-02", ())), workspace, 0.0)["rows_per_s"] == 0.0


@pytest.fixture(scope="module")
def world_lineage(tmp_path_factory):
    return worlds.built_world(tmp_path_factory)


def origins(world_lineage, name):
    """Returns column -> the columns it comes from, as `asset.column`."""
    (record, *_) = world_lineage.instance.fetch_materializations(dg.AssetKey(name), limit=1).records
    entry = record.asset_materialization.metadata.get("dagster/column_lineage")
    found = {} if entry is None else entry.column_lineage.deps_by_column
    return {column: [f"{dep.asset_key.to_user_string()}.{dep.column_name}" for dep in deps] for column, deps in found.items()}


def test_a_column_that_keeps_its_name_passed_through(world_lineage):
    found = origins(world_lineage, "behavior")
    assert found["price"] == ["behavior_table.price"]
    assert found["user_id"] == ["behavior_table.user_id"]
    assert found["category"] == ["item_table.category"]
    assert "hour" not in found, "hour is made of event_time_ms, which no name tells"


def test_a_feature_comes_from_the_columns_of_its_expressions(world_lineage):
    # user_takes_a looks a constant up in user:category_preference; city is user:city.
    found = origins(world_lineage, "user_features_fg")
    assert found["user_takes_a"] == ["user_all_feature.category_preference"]
    assert found["city"] == ["user_all_feature.city"]
    assert found["user_id"] == ["user_all_feature.user_id"]
    assert origins(world_lineage, "item_features_fg")["item_buy_count_3d"] == ["item_all_feature.buy_count_3d"]


def test_context_and_sequence_features_have_their_sources_too(world_lineage):
    assert origins(world_lineage, "sample_fg")["request_hour"] == ["sample.hour"]
    assert origins(world_lineage, "user_history_fg")["history__item"] == ["user_history.item_ids"]


def test_every_column_that_is_named_exists(world_lineage):
    columns = {}
    for name in [*worlds.DAILY, *worlds.WINDOWED]:
        columns[name] = {column.name for column in world_lineage.workspace.need(name, EVALUATION_DAY).columns}
    for name, own in columns.items():
        for column, deps in origins(world_lineage, name).items():
            assert column in own
            for dep in deps:
                asset, _, source = dep.partition(".")
                assert source in columns[asset], (name, column, dep)


def test_a_source_table_has_no_origin(world_lineage):
    assert origins(world_lineage, "user_table") == {}


def test_a_model_has_no_columns(world_lineage):
    assert origins(world_lineage, "dssm_model") == {}
