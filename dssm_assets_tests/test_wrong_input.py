"""Wrong input to the real assets: a typed error says what to do, and existing partitions stay unchanged."""

import shutil

import dagster as dg
import pyarrow as pa
import pytest
from dagster._core.errors import DagsterAssetCheckFailedError

from dssm_assets.core.errors import (
    DssmError,
    DuplicateKeyError,
    EmptyDayError,
    SchemaError,
)
from dssm_assets.core.features.fg_tables import USER_FEATURES_FG
from dssm_assets.steps.workspace import open_workspace
from dssm_assets_tests import worlds
from dssm_assets_tests.storage.stores import verify
from dssm_assets_tests.worlds import DAYS, EVALUATION_DAY

CHECK_FAILED = (DagsterAssetCheckFailedError, DssmError)
DAY = DAYS[7]


class BrokenWorld:
    """A copy of the built world, and the proof that its partitions are unchanged, byte for byte."""

    def __init__(self, world: worlds.BuiltWorld, folder) -> None:
        self.folder = folder
        self.loaded = world.copy(folder)
        self.before = worlds.every_digest(self.workspace)

    @property
    def workspace(self):
        return open_workspace(self.loaded)

    def write_source(self, name, rows):
        worlds.write_rows(self.folder / "source" / f"{name}.parquet", rows)

    def configure(self, changes):
        self.loaded = worlds.write_config(self.folder, changes)

    def expect_refusal(self, names, days, error, match):
        """Runs steps and expects the error with a remedy, and every partition unchanged."""
        with pytest.raises(error, match=match) as caught:
            worlds.run_steps(self.loaded, names, days)
        assert all(fault.remedy for fault in caught.value.faults)
        self.expect_unchanged()

    def expect_unchanged(self, but=()):
        """Checks that every partition is unchanged and complete, except those of some assets."""
        workspace = self.workspace
        now = worlds.every_digest(workspace)
        kept = {key: digest for key, digest in self.before.items() if key.partition("/")[0] not in but}
        assert {key: now[key] for key in kept} == kept
        for key in kept:
            verify(workspace.tables.partitions, workspace.need(*key.split("/")))


@pytest.fixture
def broken(tmp_path_factory, tmp_path):
    return BrokenWorld(worlds.built_world(tmp_path_factory), tmp_path / "broken")


def last_check(instance, asset, check):
    key = dg.AssetCheckKey(dg.AssetKey(asset), check)
    return instance.get_latest_asset_check_evaluation_record(key).event.asset_check_evaluation


def materialized(instance):
    return {key.to_user_string() for key in instance.all_asset_keys() if instance.get_latest_materialization_event(key)}


LOG_WITHOUT_VALUES = [
    {key: value for key, value in row.items() if key not in ("price", "page")} for row in worlds.log_rows([7])
]


@pytest.mark.parametrize(
    ("source", "rows", "asset", "error", "match"),
    [
        (
            "behavior",
            LOG_WITHOUT_VALUES,
            "behavior_table",
            SchemaError,
            r"2 faults:\n.*column page (.|\n)*column price ",
        ),
        ("users", [{"user_id": 1.5}], "user_table", SchemaError, r"column user_id: expected whole.*such as 1\.5.*store ids as"),
        (
            "users",
            [*worlds.user_rows(), {"user_id": "a3", "city": "elsewhere"}],
            "user_table",
            DuplicateKeyError,
            r"1 ids more than once\. To fix: keep one row",
        ),
    ],
)
def test_faulty_rows_of_a_source_are_refused(broken, source, rows, asset, error, match):
    broken.write_source(source, rows)
    broken.expect_refusal([asset], [DAY], error, match)


def test_ids_of_different_types_in_log_and_table_are_refused(broken):
    broken.write_source("users", [{"user_id": number, "city": "x"} for number in range(3)])
    worlds.run_steps(broken.loaded, ["user_table"], [DAY])
    downstream = ["behavior", "user_activity", "pair_activity", "user_preferences", "user_all_feature", "user_features_fg"]
    with pytest.raises(DssmError, match=r"user_id: expected one type of id, got string and int64.*store the ids with one type"):
        worlds.run_steps(broken.loaded, downstream, [DAY])
    broken.expect_unchanged(but=["user_table"])


def test_allowed_empty_day_gives_empty_partitions_with_the_same_schema(broken):
    broken.write_source("behavior", worlds.log_rows([6, 8]))
    broken.configure({"tables": {"behavior": {"allow_empty_days": True}}})
    worlds.run_steps(broken.loaded, worlds.DAILY, [DAY])
    workspace = broken.workspace
    emptied = {name: workspace.need(name, DAY) for name in ("behavior_table", "behavior", "sample_fg", "positive_sample")}
    assert {name: manifest.rows for name, manifest in emptied.items()} == dict.fromkeys(emptied, 0)
    for name, manifest in emptied.items():
        before = workspace.tables.open(workspace.need(name, DAYS[6])).schema
        assert workspace.tables.open(manifest).schema == before, name


def test_range_with_empty_days_is_refused_before_any_day_is_written(broken):
    changed = [{**row, "price": 99.0} for row in worlds.log_rows([6, 8])]
    broken.write_source("behavior", changed)
    broken.expect_refusal(["behavior_table"], DAYS[6:10], EmptyDayError, r"2 faults(.|\n)*day 2024-01-08(.|\n)*day 2024-01-10")


def test_window_with_missing_days_stops_at_its_check(broken):
    for table, day in (("positive_sample", DAYS[8]), ("user_features_fg", DAYS[10])):
        shutil.rmtree(broken.folder / "home" / "tables" / table / f"ds={day}")
        del broken.before[f"{table}/{day}"]
    instance = dg.DagsterInstance.ephemeral()
    with pytest.raises(CHECK_FAILED, match="window_complete"):
        worlds.materialize(broken.loaded, worlds.WINDOWED, [EVALUATION_DAY], instance)
    check = last_check(instance, "training_window", "window_complete")
    assert (check.passed, check.blocking, check.severity) == (False, True, dg.AssetCheckSeverity.ERROR)
    assert check.description.startswith(
        "2024-01-12: missing: positive_sample: 2024-01-09; user_features_fg: 2024-01-11. To fix: "
    )
    assert check.metadata["missing_days"].value == {"positive_sample": ["2024-01-09"], "user_features_fg": ["2024-01-11"]}
    assert materialized(instance) == {"training_window"}
    broken.expect_unchanged(but=["training_window"])


def test_features_from_the_future_fail_the_leak_check_of_a_whole_range_and_stop_the_run(broken):
    workspace = broken.workspace
    table = workspace.tables.read(workspace.need("user_features_fg", DAYS[6]))
    place = table.column_names.index("feature_date")
    later = table.set_column(place, "feature_date", pa.array([DAY] * table.num_rows))
    workspace.tables.write(USER_FEATURES_FG, DAYS[6], later)
    del broken.before[f"user_features_fg/{DAYS[6]}"]
    instance = dg.DagsterInstance.ephemeral()
    with pytest.raises(CHECK_FAILED, match="no_leak"):
        worlds.materialize(broken.loaded, ["sample_fg", "positive_sample", "numeric_value_counts"], DAYS[6:10], instance)
    check = last_check(instance, "sample_fg", "no_leak")
    rows = workspace.need("sample", DAY).rows
    assert (check.passed, check.blocking) == (False, True)
    assert check.description == (
        f"{DAY}: {rows} of {rows} rows have features newer than {DAYS[6]}; "
        "materialize the feature tables of the previous day again"
    )
    assert materialized(instance) == {"sample_fg"}
    broken.expect_unchanged()
