"""Assets of another project that read ours by parameter, in real runs: which days, in which types, and what is refused."""

import dagster as dg
import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import dssm_assets
from dssm_assets.core.errors import ConfigError, InputError, SchemaError, WindowIncompleteError
from dssm_assets.definitions import build_definitions
from dssm_assets.defs.asset_factory import Observer, build_asset
from dssm_assets.defs.asset_table import all_rows
from dssm_assets.defs.runs import QUIET_CONSOLE
from dssm_assets.defs.scene import Scene
from dssm_assets.service.engine.recall_engine import ListOptions, RecallEngine, UserRequest
from dssm_assets.steps.workspace import open_workspace
from dssm_assets.storage.config_file import LoadedConfig
from dssm_assets.stored import StoredModel, StoredTable
from dssm_assets_tests import worlds
from dssm_assets_tests.deploy.services import BUCKET, object_store
from dssm_assets_tests.worlds import DAYS, EVALUATION_DAY

THREE_DAYS = dg.TimeWindowPartitionMapping(start_offset=-2)
BUYS_OF_A_DAY = 12 * 3  # 12 users buy 3 items on each day; each is a row of positive_sample


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> LoadedConfig:
    return worlds.built_world(tmp_path_factory).loaded


def read(loaded, table, annotation=None, *, day=None, tags=None, mapping=None, columns=None, use=lambda given: given):
    """Returns what an asset of another project gets by its parameter, in a run of a day, or without days."""
    got = []

    def mine(given):
        got.append(use(given))

    mine.__annotations__ = {} if annotation is None else {"given": annotation}
    scene = Scene(loaded, "shop")
    ours = build_asset(next(row for row in all_rows() if row.name == table), scene, Observer())
    metadata = {} if columns is None else {"columns": columns}
    given = dg.AssetIn(ours.key, partition_mapping=mapping, metadata=metadata)
    host = dg.asset(ins={"given": given}, partitions_def=scene.daily if day or tags else None)(mine)
    materialize([ours, host], host, {}, partition_key=day, tags=tags)
    return got[0]


def materialize(assets, host, resources, **more):
    return dg.materialize(assets, QUIET_CONSOLE, resources=resources, selection=[host], **more)


def refusal(error, *args, **more):
    """Returns the text of the error with which the run of such an asset fails."""
    with pytest.raises(error) as raised:
        read(*args, **more)
    return str(raised.value)


def test_without_an_annotation_a_day_is_a_pandas_table_with_the_day_as_a_column(world):
    table = read(world, "positive_sample", day=DAYS[6])
    assert (len(table), set(table.ds)) == (BUYS_OF_A_DAY, {DAYS[6]})
    stored = dssm_assets.open_table("positive_sample", DAYS[6], config=world.path, home=world.home).to_pandas()
    pd.testing.assert_frame_equal(table.drop(columns="ds"), stored)


@pytest.mark.parametrize(
    ("annotation", "days"),
    [
        (pd.DataFrame, lambda table: table.ds),
        (pl.DataFrame, lambda table: table["ds"]),
        (pl.LazyFrame, lambda table: table.collect()["ds"]),
        (pa.Table, lambda table: table["ds"].to_pylist()),
        (duckdb.DuckDBPyRelation, lambda table: [ds for (ds,) in table.select("ds").fetchall()]),
    ],
)
def test_a_window_of_days_is_one_table_of_the_annotated_type_in_the_order_of_the_days(world, annotation, days):
    found = read(world, "positive_sample", annotation, day=DAYS[6], mapping=THREE_DAYS, use=lambda given: [*days(given)])
    assert found == [ds for ds in DAYS[4:7] for _ in range(BUYS_OF_A_DAY)]


def test_columns_are_those_of_the_inputs_metadata(world):
    table = read(world, "user_table", pa.Table, day=DAYS[6], mapping=THREE_DAYS, columns=["ds", "city"])
    assert (table.column_names, table.num_rows) == (["ds", "city"], 3 * 11)  # 12 users, one without a profile
    assert read(world, "user_table", pa.Table, day=DAYS[6], columns=["city"]).column_names == ["city"]
    text = refusal(InputError, world, "user_table", day=DAYS[6], columns=["town", "city"])
    assert "input shop/user_table, metadata columns: expected columns among user_id, city, ds, got town" in text


def test_an_asset_without_partitions_gets_the_days_of_its_mapping(world):
    def days(**more):
        return list(read(world, more.pop("table", "positive_sample"), pl.DataFrame, **more)["ds"].unique().sort())

    assert days(mapping=dg.SpecificPartitionsPartitionMapping([DAYS[1], DAYS[8]])) == [DAYS[1], DAYS[8]]
    assert days(mapping=dg.LastPartitionMapping()) == [DAYS[-1]]
    assert days() == DAYS
    assert days(table="item_vectors") == [EVALUATION_DAY]  # of all days of the calendar, those that are stored


def test_an_asset_and_a_check_without_partitions_get_the_stored_days_in_the_run_of_a_day_too(world):
    got, scene = [], Scene(world, "shop")
    ours = build_asset(next(row for row in all_rows() if row.name == "item_vectors"), scene, Observer())
    of_days = dg.asset(name="of_days", partitions_def=scene.daily)(lambda: None)

    @dg.asset(ins={"vectors": dg.AssetIn(ours.key)})
    def mine(vectors):
        got.extend(vectors.ds.unique())

    @dg.asset_check(asset=of_days, additional_ins={"vectors": dg.AssetIn(ours.key)})
    def check(vectors):
        got.extend(vectors.ds.unique())
        return dg.AssetCheckResult(passed=True)

    dg.materialize([ours, of_days, mine, check], QUIET_CONSOLE, selection=[of_days, mine, check], partition_key=DAYS[1])
    assert got == [EVALUATION_DAY] * 2


def test_a_notebook_loads_days_outside_of_a_run(world):
    load = build_definitions(world).load_asset_value
    assert load("user_table", python_type=pl.DataFrame, partition_key=DAYS[6])["ds"].to_list() == [DAYS[6]] * 11


def test_missing_days_are_named_with_the_command_that_makes_them(world):
    text = refusal(WindowIncompleteError, world, "item_vectors", day=DAYS[8])
    assert f"table item_vectors: expected every day to be materialized, got no partition for {DAYS[8]}" in text
    assert f"dssm-assets materialize item_vectors --from {DAYS[8]} --with-upstream" in text
    text = refusal(WindowIncompleteError, world, "item_vectors", day=EVALUATION_DAY, mapping=THREE_DAYS)
    assert f"no partition for {DAYS[9]}, {DAYS[10]}" in text
    every_day = {"dagster/asset_partition_range_start": DAYS[6], "dagster/asset_partition_range_end": DAYS[-1]}
    assert f"no partition for {DAYS[6]}, " in refusal(WindowIncompleteError, world, "item_vectors", tags=every_day)
    before = dg.TimeWindowPartitionMapping(start_offset=-2, end_offset=-2)
    assert "expected at least one day" in refusal(InputError, world, "user_table", day=DAYS[0], mapping=before)


def test_a_skipped_day_says_why_it_has_no_table(tmp_path_factory, tmp_path):
    empty = DAYS[9]
    loaded = worlds.built_world(tmp_path_factory).copy(tmp_path / "world", {"tables": {"behavior": {"allow_empty_days": True}}})
    worlds.write_rows(
        tmp_path / "world" / "source" / "behavior.parquet", worlds.log_rows([day for day in range(12) if day != 9])
    )
    worlds.run_steps(loaded, worlds.DAILY, [empty])
    text = refusal(WindowIncompleteError, loaded, "item_vectors", day=empty)
    assert f"got {empty}, which is skipped: there is no positive event on the day {empty}, so there is nothing to find" in text
    assert "To fix: leave the day out of this asset's runs" in text and "dssm-assets materialize" not in text
    text = refusal(WindowIncompleteError, loaded, "item_vectors", day=DAYS[10], mapping=THREE_DAYS)
    assert f"{empty}, which is skipped" in text and f"no partition for {DAYS[8]}, {DAYS[10]}" in text
    assert f"materialize item_vectors --from {DAYS[8]}" in text


def test_a_model_and_a_table_come_as_their_handles(world):
    top = read(world, "dssm_model", StoredModel, day=EVALUATION_DAY, use=lambda model: model.top_items(["a0"], k=3))
    model = dssm_assets.load_model(EVALUATION_DAY, config=world.path, home=world.home)
    assert top.equals(model.top_items(["a0"], k=3))
    table = read(world, "user_table", StoredTable, day=DAYS[0])
    assert (table.day, list(table.columns)) == (DAYS[0], ["user_id", "city"])
    files = read(world, "training_config", day=EVALUATION_DAY)
    assert {name: path.is_file() for name, path in files.items()} == {"training_config.yaml": True}


def test_a_bundle_comes_as_its_engine(world, tmp_path_factory, tmp_path):
    loaded = worlds.built_world(tmp_path_factory).copy(tmp_path / "copy")
    worlds.run_steps(loaded, worlds.PUBLISHED, [EVALUATION_DAY])
    engine = read(loaded, "serving_bundle", RecallEngine, day=EVALUATION_DAY)
    stored = open_workspace(loaded).need("serving_bundle", EVALUATION_DAY)
    assert engine.bundle.bundle_id == stored.facts["bundle_id"]
    answer = dssm_assets.recall("a0", k=5, config=loaded.path, home=loaded.home)
    assert engine.recall(UserRequest("a0", options=ListOptions(5))).to_dict() == answer.to_dict()
    assert set(read(loaded, "serving_bundle", dict, day=EVALUATION_DAY)) == {"manifest.json"}
    assert "samples.arrow" in read(loaded, "train_samples", dict, day=EVALUATION_DAY), "an artifact whose manifest has columns"


@pytest.mark.parametrize(
    ("table", "annotation", "more", "expected"),
    [
        ("user_table", list, {}, "one of: pandas.DataFrame, polars.DataFrame, polars.LazyFrame, pyarrow.Table, "),
        ("dssm_model", pd.DataFrame, {}, "one of: dssm_assets.stored.StoredModel, builtins.dict, got pandas.DataFrame"),
        ("user_table", StoredTable, {"mapping": THREE_DAYS}, f"one whole day for this annotation, got days {DAYS[9]}, "),
        (
            "user_table",
            StoredTable,
            {"columns": ["city"]},
            f"one whole day for this annotation, got days {EVALUATION_DAY}, columns [",
        ),
    ],
)
def test_an_annotation_that_does_not_fit_is_refused(world, table, annotation, more, expected):
    text = refusal(InputError, world, table, annotation, day=EVALUATION_DAY, **more)
    assert f"input shop/{table}: expected {expected}" in text


def test_days_with_other_columns_are_read_together_unless_a_type_has_changed(world, tmp_path_factory, tmp_path):
    loaded = worlds.built_world(tmp_path_factory).copy(tmp_path / "copy")
    users = tmp_path / "copy" / "source" / "users.parquet"
    worlds.write_rows(users, [{"user_id": "a0", "age": 7}])
    worlds.run_steps(loaded, ["user_table"], [DAYS[6]])
    table = read(loaded, "user_table", day=DAYS[6], mapping=THREE_DAYS)
    assert (list(table.columns), len(table)) == (["user_id", "city", "ds", "age"], 2 * 11 + 1)
    assert table.age.dropna().tolist() == [7]
    assert table.city.isna().sum() == 1
    worlds.write_rows(users, [{"user_id": "a0", "city": 3}])
    worlds.run_steps(loaded, ["user_table"], [DAYS[6]])
    text = refusal(SchemaError, loaded, "user_table", day=DAYS[6], mapping=THREE_DAYS)
    assert f"input shop/user_table, days {DAYS[5]}, {DAYS[6]}: expected columns of one type" in text
    only_ids = read(loaded, "user_table", day=DAYS[6], mapping=THREE_DAYS, columns=["user_id"])
    assert len(only_ids) == 2 * 11 + 1


@pytest.mark.slow
def test_days_on_an_object_store_are_read_like_local_ones(tmp_path):
    with object_store() as options:
        storage = {"root": f"s3://{BUCKET}/stored_tables", "options": options}
        loaded = worlds.write_world(tmp_path, {"storage": storage})
        worlds.run_steps(loaded, ["user_table"], DAYS[4:7])
        window = {"day": DAYS[6], "mapping": THREE_DAYS}
        users = read(loaded, "user_table", pd.DataFrame, **window)
        lazy = read(loaded, "user_table", pl.LazyFrame, use=lambda table: table.collect().to_pandas(), **window)
    assert users.ds.tolist() == lazy.ds.tolist() == [ds for ds in DAYS[4:7] for _ in range(11)]


def test_it_does_not_write(world):
    mine = dg.asset(name="mine", io_manager_key="ours")(lambda: 1)
    with pytest.raises(InputError, match=r"output of mine.*got dssm_assets\.StoredTables, which only reads"):
        materialize([mine], mine, {"ours": dssm_assets.StoredTables(world)})


def test_a_code_location_without_our_assets_names_the_io_manager(world):
    daily = dg.DailyPartitionsDefinition(DAYS[0], timezone=worlds.TIMEZONE)
    ours = dg.AssetSpec(["shop", "user_table"], partitions_def=daily).with_io_manager_key("shop")
    bare = dg.AssetSpec(["shop", "item_table"]).with_io_manager_key("shop")

    @dg.asset(ins={"users": dg.AssetIn(ours.key)}, partitions_def=daily)
    def mine(users: "pd.DataFrame") -> dg.MaterializeResult:
        return dg.MaterializeResult(metadata={"users": len(users)})

    @dg.asset(ins={"items": dg.AssetIn(bare.key)})
    def other(items):
        pass

    resources = {"shop": dssm_assets.StoredTables(world.path, home=world.home)}
    done = materialize([ours, mine], mine, resources, partition_key=DAYS[3])
    assert done.asset_materializations_for_node("mine")[0].metadata["users"].value == 11
    with pytest.raises(InputError, match="got an asset without partitions, or a mapping to none"):
        materialize([bare, other], other, resources)
    with pytest.raises(ConfigError, match=r"nowhere\.yaml"):
        materialize([ours, mine], mine, {"shop": dssm_assets.StoredTables("nowhere.yaml")}, partition_key=DAYS[3])
