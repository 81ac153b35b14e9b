"""Towers that read no history: none is stored, and all later steps work."""

from __future__ import annotations

import pytest

from dssm_assets.service.bundle.bundle_store import open_bundles
from dssm_assets.service.engine.recall_engine import RecallEngine, UserRequest
from dssm_assets.service.engine.request_encoder import UserInputs
from dssm_assets.steps.workspace import open_workspace
from dssm_assets_tests import worlds
from dssm_assets_tests.service.bundle.published_bundles import publish_bundle
from dssm_assets_tests.steps.train_files import train_tables
from dssm_assets_tests.worlds import EVALUATION_DAY


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    features = [feature for feature in worlds.FG["features"] if feature["feature_type"] != "sequence_feature"]
    changes = {"features": {"fg": {"features": features}}, "model": {"user_positive_mask": False}}
    loaded = worlds.built_world(tmp_path_factory).copy(tmp_path_factory.mktemp("no_history") / "world", changes)
    days = worlds.DAYS[-worlds.WINDOW_DAYS - 2 :]
    worlds.run_steps(loaded, worlds.DAILY[worlds.DAILY.index("item_features_fg") :], days)
    worlds.run_steps(loaded, worlds.WINDOWED, [EVALUATION_DAY])
    workspace = open_workspace(loaded)
    publish_bundle(workspace)
    return workspace


def test_history_files_are_empty(workspace):
    tables = train_tables(workspace, EVALUATION_DAY)
    assert (tables["history"].num_rows, tables["users"].num_rows) == (0, 0)
    assert set(tables["samples"].column("user_index").to_pylist()) == {-1}


def test_every_user_has_a_vector_and_the_day_is_scored(workspace):
    users = workspace.need("user_features_fg", worlds.DAYS[-2]).rows
    assert workspace.need("user_vectors", EVALUATION_DAY).rows == users
    total = workspace.tables.read(workspace.need("total_hit_rate", EVALUATION_DAY)).to_pylist()
    assert {row["scorer"] for row in total} >= {"model", "popularity"}


@pytest.mark.parametrize(("user", "source"), [("a0", "stored"), ("stranger", "features"), (None, "features")])
@pytest.mark.parametrize("name", ["events", "history"])
def test_events_are_own_items_of_merged_lists(workspace, user, source, name):
    engine = RecallEngine.open(open_bundles(workspace.loaded).root)
    item = engine.bundle.items.ids_at([3])[0]
    answer = engine.recall(UserRequest(user_id=user, inputs=UserInputs(**{name: {"item_ids": [item], "size": [4]}})))
    assert (answer.source, answer.ignored) == (source, ("size",))
    assert "own_history" in answer.sources[answer.item_ids.index(item)]
