"""Recall from the bundle that serving_bundle publishes from the tiny world (`worlds.py`)."""

import argparse
import json

import pytest

from dssm_assets.commands import recall
from dssm_assets.serving.recall_engine import RecallEngine
from dssm_assets.serving.request_encoder import UserInputs
from dssm_assets.steps.serving import serving_bundle
from dssm_assets.steps.workspace import open_workspace
from dssm_assets.storage.bundles import open_bundles
from dssm_assets_tests import worlds
from dssm_assets_tests.serving.bundles import vector_of
from dssm_assets_tests.worlds import DAYS, EVALUATION_DAY

HISTORY = ("item_ids", "event_times_ms", "category")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    loaded = worlds.built_world(tmp_path_factory).copy(tmp_path_factory.mktemp("served") / "world")
    workspace = open_workspace(loaded)
    if open_bundles(workspace.loaded).pointer() is None:
        list(serving_bundle(workspace, [EVALUATION_DAY]))
    return workspace


@pytest.fixture(scope="module")
def engine(workspace):
    return RecallEngine.open(open_bundles(workspace.loaded).root)


@pytest.fixture(scope="module")
def requests(workspace, engine):
    """User -> the features and the history that a request would send, from the tables before feature generation."""
    as_of = engine.bundle.manifest["features_as_of"]
    rows = workspace.tables.read(workspace.need("user_all_feature", as_of)).to_pylist()
    history = {row["user_id"]: {name: [] for name in HISTORY} for row in rows}
    for ds in DAYS[: DAYS.index(as_of) + 1]:
        for row in workspace.tables.read(workspace.need("user_history", ds)).to_pylist():
            for name in HISTORY:
                history[row["user_id"]][name] += row[name]
    return {
        row["user_id"]: UserInputs({name: to_json(value) for name, value in row.items()}, history[row["user_id"]])
        for row in rows
    }


def to_json(value):
    """Returns a value as JSON would carry it: the pairs of a map as a mapping."""
    is_map = isinstance(value, list) and value and isinstance(value[0], tuple)
    return dict(value) if is_map else value


def test_vector_of_a_users_features_is_the_stored_vector(engine, requests):
    assert set(requests) == set(worlds.users())
    for user, request in requests.items():
        computed = vector_of(engine, request)
        stored = engine.bundle.user_vector(engine.bundle.users.find_row(user))
        assert computed == pytest.approx(stored, abs=1e-5)


def test_recall_command_finds_the_bundle_of_the_configuration(workspace, monkeypatch, capsys):
    monkeypatch.setenv("DSSM_CONFIG", str(workspace.loaded.path))
    monkeypatch.setenv("DSSM_HOME", str(workspace.loaded.home))
    parser = argparse.ArgumentParser()
    recall.add_command(parser.add_subparsers())
    parsed = parser.parse_args(["recall", "--user-id", "b2", "-k", "3", "--json"])
    assert parsed.command(parsed) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["source"], {item[0] for item in answer["item_ids"]}) == ("stored", {"b"})
