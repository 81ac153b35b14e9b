"""The asset serving_bundle as Dagster runs it."""

import dagster as dg
import pytest

from dssm_assets.defs.asset_factory import Observer, build_asset
from dssm_assets.defs.asset_table import all_rows
from dssm_assets.defs.scene import Scene
from dssm_assets.steps.workspace import open_workspace
from dssm_assets.storage.bundles import open_bundles
from dssm_assets_tests import worlds
from dssm_assets_tests.worlds import EVALUATION_DAY

(ROW,) = (row for row in all_rows() if row.name == "serving_bundle")


def run(loaded, instance):
    asset = build_asset(ROW, Scene(loaded), Observer())
    return dg.materialize([asset], instance=instance, partition_key=EVALUATION_DAY, raise_on_error=False)


def checks_of(result):
    return {found.check_name: found for found in result.get_asset_check_evaluations()}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return worlds.built_world(tmp_path_factory)


def test_bundle_is_served_and_its_checks_and_metadata_are_recorded(world, tmp_path):
    loaded = world.copy(tmp_path / "world")
    with dg.DagsterInstance.ephemeral() as instance:
        result = run(loaded, instance)
        assert result.success
        assert {name: found.passed for name, found in checks_of(result).items()} == {
            "exported_towers": True,
            "index_recall": True,
        }
        (made,) = result.asset_materializations_for_node("serving_bundle")
    pointer = open_bundles(open_workspace(loaded).loaded).pointer()
    assert made.metadata["bundle_id"].value == pointer.bundle_id
    assert (made.metadata["users"].value, made.metadata["items"].value) == (len(worlds.users()), 20)
    assert "item_index.faiss" in made.metadata["report"].value
    assert made.metadata["features_as_of"].value == EVALUATION_DAY


def test_failing_check_is_an_error_and_the_previous_bundle_keeps_serving(world, tmp_path, monkeypatch):
    loaded = world.copy(tmp_path / "world")
    with dg.DagsterInstance.ephemeral() as instance:
        assert run(loaded, instance).success
        before = open_bundles(open_workspace(loaded).loaded).pointer()
        monkeypatch.setattr("dssm_assets.steps.serving.MAX_TOWER_DIFFERENCE", 1e-30)
        found = checks_of(run(loaded, instance))["exported_towers"]
    assert (found.passed, found.severity, found.blocking) == (False, dg.AssetCheckSeverity.ERROR, True)
    assert "not published" in found.description
    assert open_bundles(open_workspace(loaded).loaded).pointer() == before
