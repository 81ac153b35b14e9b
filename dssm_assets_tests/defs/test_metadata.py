"""Metadata of partitions: rows, columns and their meaning, URI, seconds; values that Dagster can store."""

import re

import dagster as dg
import numpy as np
import pytest

from dssm_assets.defs.asset_run import partition_metadata, to_metadata_value
from dssm_assets.defs.asset_table import all_rows
from dssm_assets.steps.workspace import StepResult, open_workspace
from dssm_assets.storage.manifest import Column, Manifest, StoredFile
from dssm_assets_tests import worlds

ARTIFACTS = {"training_config", "train_samples", "dssm_model"}
ROWS = [row for row in all_rows() if row.name not in worlds.PUBLISHED]
NAMES = [row.name for row in ROWS if not row.is_on_request]


def materializations(world, name):
    found = world.instance.fetch_materializations(dg.AssetKey(name), limit=100).records
    return {record.partition_key: record.asset_materialization.metadata for record in found}


def _entries_alike(kind):
    # Parquet calls the entries of a list `element`, Arrow in memory `item`.
    return kind.replace("<element: ", "<item: ")


def days_of(name):
    return worlds.DAYS if name in worlds.DAILY else [worlds.EVALUATION_DAY]


@pytest.mark.parametrize("name", NAMES)
def test_each_day_has_its_own_metadata(world, name):
    by_day = materializations(world, name)
    assert sorted(by_day) == days_of(name)
    for ds, metadata in by_day.items():
        manifest = world.workspace.need(name, ds)
        assert next(iter(metadata.items())) == ("day", dg.MetadataValue.text(ds))
        assert metadata["dagster/row_count"].value == manifest.rows
        assert metadata["dagster/uri"].value == f"{world.loaded.root}/{name}/ds={ds}"
        assert metadata["digest"].value == manifest.digest
        assert metadata["size"].value.endswith(" kB") and sum(file.bytes for file in manifest.files) < 1e6
        seconds = metadata["seconds"].value
        assert 0 <= seconds < 60


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ARTIFACTS])
def test_every_column_has_its_stored_type_and_a_description(world, name):
    ds = days_of(name)[-1]
    columns = materializations(world, name)[ds]["dagster/column_schema"].schema.columns
    stored = world.workspace.tables.open(world.workspace.need(name, ds)).schema
    shown_types = [(column.name, _entries_alike(column.type)) for column in columns]
    assert shown_types == [(field.name, _entries_alike(str(field.type))) for field in stored]
    assert [column.name for column in columns if not (column.description or "").strip()] == []


def test_columns_of_encoded_features_say_how_they_are_computed(world):
    for name, side in (("user_features_fg", "user"), ("item_features_fg", "item")):
        columns = materializations(world, name)[worlds.DAYS[-1]]["dagster/column_schema"].schema.columns
        said = {column.name: column.description for column in columns if column.name not in (f"{side}_id", "feature_date")}
        assert said and all(re.match(rf"\w+_feature .*of {side}:\w+", text) for text in said.values()), said
        assert len(set(said.values())) > 1


def test_inputs_are_listed_with_their_digests(world):
    before, ds = worlds.DAYS[-2:]
    metadata = materializations(world, "sample_fg")[ds]["inputs"].value
    workspace = world.workspace
    assert metadata == {
        f"item_features_fg/{before}": workspace.need("item_features_fg", before).digest,
        f"sample/{ds}": workspace.need("sample", ds).digest,
        f"user_features_fg/{before}": workspace.need("user_features_fg", before).digest,
    }


def test_columns_and_inputs_are_listed_once_in_a_run_over_several_days(world):
    by_day = materializations(world, "sample_fg")
    structure = {"dagster/column_schema", "inputs"}
    assert {ds for ds, metadata in by_day.items() if structure & metadata.keys()} == {worlds.DAYS[-1]}
    assert structure <= by_day[worlds.DAYS[-1]].keys()


def test_report_and_loss_curve_are_markdown(world):
    report = materializations(world, "total_hit_rate")[worlds.EVALUATION_DAY]["report"]
    assert isinstance(report, dg.MarkdownMetadataValue)
    assert "popularity" in report.value
    curve = materializations(world, "dssm_model")[worlds.EVALUATION_DAY]["loss_curve"]
    assert curve.value.startswith("![loss_curve](data:image/png;base64,iVBOR")


def test_about_ten_figures_are_plotted_and_no_size_or_speed(world):
    """The UI draws a chart of every number."""
    for name in NAMES:
        metadata = materializations(world, name)[days_of(name)[-1]]
        numbers = [key for key, one in metadata.items() if isinstance(one, (dg.IntMetadataValue, dg.FloatMetadataValue))]
        assert [key for key in numbers if key.endswith(("bytes", "rows_per_s"))] == []
        if name == "total_hit_rate":
            assert len(numbers) <= 12, numbers


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.int64(3), 3),
        (np.bool_(True), True),
        ("text", "text"),
        (0.40743751270067, 0.4074),
        (0.022727272727, 0.02273),
        (np.float64(1e6), 1e6),
        (-0.00345458, -0.003455),
    ],
)
def test_scalars_become_plain(value, expected):
    plain = to_metadata_value(value)
    assert (plain, type(plain)) == (expected, type(expected))


def test_facts_report_and_images_of_a_step_are_added(tmp_path):
    workspace = open_workspace(worlds.write_config(tmp_path))
    file = StoredFile("part.parquet", "part-1.parquet", 20, "1" * 64, 10)
    manifest = Manifest("sample", "2024-01-02", (file,), (Column("user_id", "string", "Who."),))
    result = StepResult(manifest, {"kept": np.int64(4)}, report_markdown="# Report", images={"curve": b"\x89PNG"})
    metadata = partition_metadata(result, workspace, 0.5)
    figures = [metadata[key] for key in ("dagster/row_count", "seconds", "size", "kept")]
    assert figures == [10, 0.5, "0 kB", 4]
    assert metadata["report"] == dg.MetadataValue.md("# Report")
    assert metadata["curve"].value == "![curve](data:image/png;base64,iVBORw==)"
    assert "inputs" not in metadata
