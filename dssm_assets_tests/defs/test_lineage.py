"""Column lineage: names that pass through, features by their expressions, and nothing that nobody knows."""

import dagster as dg
import pytest

from dssm_assets_tests import worlds
from dssm_assets_tests.worlds import EVALUATION_DAY


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return worlds.built_world(tmp_path_factory)


def origins(world, name):
    """Returns column -> the columns it comes from, as `asset.column`."""
    (record, *_) = world.instance.fetch_materializations(dg.AssetKey(name), limit=1).records
    entry = record.asset_materialization.metadata.get("dagster/column_lineage")
    found = {} if entry is None else entry.column_lineage.deps_by_column
    return {column: [f"{dep.asset_key.to_user_string()}.{dep.column_name}" for dep in deps] for column, deps in found.items()}


def test_a_column_that_keeps_its_name_passed_through(world):
    found = origins(world, "behavior")
    assert found["price"] == ["behavior_table.price"]
    assert found["user_id"] == ["behavior_table.user_id"]
    assert found["category"] == ["item_table.category"]
    assert "hour" not in found, "hour is made of event_time_ms, which no name tells"


def test_a_feature_comes_from_the_columns_of_its_expressions(world):
    # user_takes_a looks a constant up in user:category_preference; city is user:city.
    found = origins(world, "user_features_fg")
    assert found["user_takes_a"] == ["user_all_feature.category_preference"]
    assert found["city"] == ["user_all_feature.city"]
    assert found["user_id"] == ["user_all_feature.user_id"]
    assert origins(world, "item_features_fg")["item_buy_count_3d"] == ["item_all_feature.buy_count_3d"]


def test_context_and_sequence_features_have_their_sources_too(world):
    assert origins(world, "sample_fg")["request_hour"] == ["sample.hour"]
    assert origins(world, "user_history_fg")["history__item"] == ["user_history.item_ids"]


def test_every_column_that_is_named_exists(world):
    columns = {}
    for name in [*worlds.DAILY, *worlds.WINDOWED]:
        columns[name] = {column.name for column in world.workspace.need(name, EVALUATION_DAY).columns}
    for name, own in columns.items():
        for column, deps in origins(world, name).items():
            assert column in own
            for dep in deps:
                asset, _, source = dep.partition(".")
                assert source in columns[asset], (name, column, dep)


def test_a_source_table_has_no_origin(world):
    assert origins(world, "user_table") == {}


def test_a_model_has_no_columns(world):
    assert origins(world, "dssm_model") == {}
