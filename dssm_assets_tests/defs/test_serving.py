"""The asset serving_bundle as Dagster runs it."""

import dagster as dg

from dssm_assets.defs.asset_factory import Observer, build_asset
from dssm_assets.defs.asset_table import all_rows
from dssm_assets.defs.scene import Scene
from dssm_assets.service.bundle.bundle_store import open_bundles
from dssm_assets_tests import worlds
from dssm_assets_tests.worlds import EVALUATION_DAY

(ROW,) = (row for row in all_rows() if row.name == "serving_bundle")


def run(loaded, instance):
    asset = build_asset(ROW, Scene(loaded), Observer())
    return dg.materialize([asset], instance=instance, partition_key=EVALUATION_DAY, raise_on_error=False)


def checks_of(result):
    return {found.check_name: found for found in result.get_asset_check_evaluations()}


def test_bundle_with_recorded_checks_and_metadata_is_served_until_one_that_passes(world, tmp_path, monkeypatch):
    loaded = world.copy(tmp_path / "world")
    with dg.DagsterInstance.ephemeral() as instance:
        result = run(loaded, instance)
        assert result.success
        assert {name: found.passed for name, found in checks_of(result).items()} == {
            "exported_towers": True,
            "index_recall": True,
        }
        (made,) = result.asset_materializations_for_node("serving_bundle")
        pointer = open_bundles(loaded).pointer()
        monkeypatch.setattr("dssm_assets.service.bundle.serving_bundle.MAX_TOWER_DIFFERENCE", 1e-30)
        failed = checks_of(run(loaded, instance))["exported_towers"]
    assert made.metadata["bundle_id"].value == pointer.bundle_id
    assert (made.metadata["users"].value, made.metadata["items"].value) == (len(worlds.users()), 20)
    assert "item_index.faiss" in made.metadata["report"].value
    assert made.metadata["features_as_of"].value == EVALUATION_DAY
    assert (failed.passed, failed.severity, failed.blocking) == (False, dg.AssetCheckSeverity.ERROR, True)
    assert "not published" in failed.description
    assert open_bundles(loaded).pointer() == pointer
