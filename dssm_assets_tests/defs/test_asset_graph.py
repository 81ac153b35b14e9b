"""The asset graph, compared with the snapshot `asset_graph.json`."""

import dagster as dg
import pytest

from dssm_assets.defs.asset_table import all_rows
from dssm_assets.installed_extras import EXTRAS, find_extras
from dssm_assets_tests import programs, worlds
from dssm_assets_tests.defs import graph

OF_EXTRAS = {
    "bundle_delta": "bundle_delta",
    "cleanup": "retention",
    "experiments": "experiments",
    "vector_store": "vector_stores",
}
"""Asset -> the extra that adds it."""
UNPARTITIONED = {name for name, extra in OF_EXTRAS.items() if extra in find_extras()} & {"bundle_delta", "cleanup"}


@pytest.fixture(scope="module")
def defs(tmp_path_factory):
    return graph.tiny_definitions(tmp_path_factory.mktemp("graph"))


@pytest.fixture(scope="module")
def assets(defs):
    return graph.asset_graph(defs)["assets"]


@programs.needs_extras(*EXTRAS)
def test_graph_equals_the_snapshot(defs):
    expected = graph.SNAPSHOT.read_text(encoding="utf-8")
    assert graph.text(graph.asset_graph(defs)) == expected, "if the change is intended: python -m dssm_assets_tests.defs.graph"


def test_the_definitions_of_the_code_location_can_be_loaded():
    from dssm_assets import definitions

    dg.Definitions.validate_loadable(definitions.defs())
    assert set(graph.asset_graph(definitions.defs())["assets"]) == {row.name for row in all_rows()} | UNPARTITIONED


def test_every_check_has_a_description(assets):
    assert [name for name, asset in assets.items() for check in asset["checks"].values() if not check["description"]] == []


def test_partitions_are_the_calendars_days_including_both_ends(defs):
    partitions = defs.resolve_assets_def("behavior").partitions_def
    assert partitions.get_partition_keys() == worlds.DAYS
    assert str(partitions.timezone) == worlds.TIMEZONE


def test_daily_assets_take_a_range_per_run_and_windowed_ones_a_day_per_run(assets):
    policies = {name: asset["backfill"] for name, asset in assets.items()}
    assert {policies[name] for name in worlds.DAILY} == {"SINGLE_RUN"}
    assert {policies[name] for name in [*worlds.WINDOWED, *worlds.PUBLISHED]} == {"MULTI_RUN 1"}
    on_request = [row.name for row in all_rows() if row.is_on_request]
    assert len(worlds.DAILY) + len(worlds.WINDOWED) + len(worlds.PUBLISHED) + len(on_request) == len(assets) - len(
        UNPARTITIONED
    ), "all but those without partitions"


def test_no_job_runs_an_asset_on_request(defs):
    on_request = {row.name for row in all_rows() if row.is_on_request}
    assert on_request <= {"feature_importance", "vector_store"}
    assert all(on_request.isdisjoint(names) for names in graph.asset_graph(defs)["jobs"].values())


def test_every_windowed_asset_is_downstream_of_the_blocking_window_check(assets):
    def upstream(name):
        return {name}.union(*(upstream(dep) for dep in assets[name]["deps"]))

    outside = [name for name in worlds.WINDOWED if "training_window" not in upstream(name)]
    assert outside == []
    assert assets["training_window"]["checks"]["window_complete"]["blocking"]


def test_every_asset_says_its_grain_and_what_to_look_at(defs):
    for row in all_rows():
        assert row.reading.split(".")[0].startswith(("One ", "Two rows", "Look at ")), row.name
        assert defs.resolve_assets_def(row.name).specs_by_key[dg.AssetKey(row.name)].description.endswith(row.reading)
