"""The bundle that serving_bundle publishes from the tiny world (`worlds.py`), read back and asked."""

import argparse
import json

import pytest

from dssm_assets.commands import recall
from dssm_assets.serving.recall_engine import Engine, Source
from dssm_assets.serving.requests import Given
from dssm_assets.steps.serving import bundle_store, serving_bundle
from dssm_assets.steps.workspace import open_workspace
from dssm_assets_tests import worlds
from dssm_assets_tests.worlds import DAYS, EVALUATION_DAY, GROUP_SIZE

HISTORY = ("item_ids", "event_times_ms", "category")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    loaded = worlds.built_world(tmp_path_factory).copy(tmp_path_factory.mktemp("served") / "world")
    workspace = open_workspace(loaded)
    if bundle_store(workspace).pointer() is None:
        list(serving_bundle(workspace, [EVALUATION_DAY]))
    return workspace


@pytest.fixture(scope="module")
def engine(workspace):
    return Engine.open(bundle_store(workspace).root)


@pytest.fixture(scope="module")
def given(workspace, engine):
    """Every user's features and past as a request would tell them, from the tables before feature generation."""
    as_of = engine.bundle.manifest["features_as_of"]
    rows = workspace.tables.read(workspace.need("user_all_feature", as_of)).to_pylist()
    past = {row["user_id"]: {name: [] for name in HISTORY} for row in rows}
    for ds in DAYS[: DAYS.index(as_of) + 1]:
        for row in workspace.tables.read(workspace.need("user_history", ds)).to_pylist():
            for name in HISTORY:
                past[row["user_id"]][name] += row[name]
    return {row["user_id"]: Given({name: plain(value) for name, value in row.items()}, past[row["user_id"]]) for row in rows}


def plain(value):
    """Returns a value as JSON would carry it: the pairs of a map as a mapping."""
    is_map = isinstance(value, list) and value and isinstance(value[0], tuple)
    return dict(value) if is_map else value


def test_the_vector_of_a_users_features_is_the_stored_vector(engine, given):
    assert set(given) == set(worlds.users())
    for user, request in given.items():
        made, _ = engine.tower.vector(request)
        stored = engine.bundle.user_vectors.vector(engine.bundle.users.row(user))
        assert made == pytest.approx(stored, abs=1e-5)


def test_a_cold_user_with_the_same_features_gets_the_same_list(engine, given):
    for user, request in given.items():
        cold, stored = engine.for_features(request, 5), engine.for_user(user, 5)
        assert (cold.source, stored.source) == (Source.FEATURES, Source.STORED)
        assert cold.scores == pytest.approx(stored.scores, abs=1e-5)


def test_features_and_past_both_matter(engine, given):
    request = given["a0"]
    whole, _ = engine.tower.vector(request)
    without_past, _ = engine.tower.vector(Given({**request.features}, {}))
    elsewhere, _ = engine.tower.vector(Given({**request.features, "city": "another"}, request.history))
    assert abs(whole - without_past).max() > 1e-3
    assert abs(whole - elsewhere).max() > 1e-6


def test_every_group_is_recalled_its_own_items(engine):
    for user in worlds.users():
        assert {item[0] for item in engine.for_user(user, GROUP_SIZE).item_ids} == {user[0]}


def test_similar_items_are_of_the_same_group(engine):
    for item in ("a_03", "b_07"):
        found = engine.similar(item, GROUP_SIZE - 1).item_ids
        assert item not in found
        assert {other[0] for other in found} == {item[0]}


def test_a_new_user_is_recalled_by_the_past_alone(engine):
    request = Given({"city": "city0"}, {"item_ids": ["b_01", "b_02"], "category": ["cat_b", "cat_b"]})
    assert {item[0] for item in engine.for_features(request, GROUP_SIZE).item_ids} == {"b"}


def test_popular_items_count_the_window(engine):
    answer = engine.popular(GROUP_SIZE)
    assert answer.source is Source.POPULAR
    assert answer.scores == sorted(answer.scores, reverse=True)
    assert answer.scores[0] > 0


def test_the_command_finds_the_bundle_of_the_configuration(workspace, monkeypatch, capsys):
    monkeypatch.setenv("DSSM_CONFIG", str(workspace.loaded.path))
    monkeypatch.setenv("DSSM_HOME", str(workspace.loaded.home))
    parser = argparse.ArgumentParser()
    recall.add_command(parser.add_subparsers())
    parsed = parser.parse_args(["recall", "--user-id", "b2", "-k", "3", "--json"])
    assert parsed.command(parsed) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["source"], {item[0] for item in answer["item_ids"]}) == ("stored", {"b"})
