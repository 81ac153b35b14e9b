"""Jobs of another project that select our assets by group, kind, tag and owner."""

import dagster as dg
import pytest

from dssm_assets.definitions import scene_definitions
from dssm_assets.defs.asset_factory import Observer
from dssm_assets.defs.asset_table import ASSET_TABLE
from dssm_assets.defs.scene import Scene
from dssm_assets_tests import worlds

ASSETS = {row.name for rows in ASSET_TABLE.values() for row in rows}


@dg.asset(group_name="reports", kinds={"pytorch"}, owners=["team:recommendation"])
def of_the_host():
    pass


def merge(loaded, *jobs):
    own = dg.Definitions(assets=[of_the_host], jobs=jobs)
    return dg.Definitions.merge(scene_definitions(Scene(loaded, "shop"), Observer()), own)


@pytest.mark.parametrize(
    ("selection", "names"),
    [
        ('kind:pytorch and tag:"dssm/scene"="tiny"', {"dssm_model", "item_vectors", "user_vectors"}),
        ('tag:"dssm/layer"="daily"', {*worlds.DAILY}),
        ('owner:"team:recommendation" and not tag:"dssm/layer"="daily"', {*ASSETS, "of_the_host"} - {*worlds.DAILY}),
        ('+key:"shop/item_vectors" and group:shop_training', {"dssm_model", "negative_items", "train_samples"}),
    ],
)
def test_a_job_has_the_assets_that_its_selection_names(tmp_path, selection, names):
    defs = merge(worlds.write_config(tmp_path), dg.define_asset_job("chosen", selection=selection))
    found = {key.path[-1] for key in defs.resolve_job_def("chosen").asset_layer.executable_asset_keys}
    assert found - {"bundle_delta", "cleanup", "experiments", "feature_importance", "vector_store"} == names  # those of extras
