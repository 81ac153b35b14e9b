"""Merged lists from a published bundle: the same as the evaluation ranks, and where each item comes from."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings

from dssm_assets.cli import main
from dssm_assets.core.arrays.ids import IdIndex
from dssm_assets.core.channels.channel import SIMILARITY, OwnItems, SharedData, make_channels
from dssm_assets.core.channels.merge import IS_OWN_ITEM, BlockOfUsers, MergedScorer, Signal, Term
from dssm_assets.core.config.channels import ChannelName
from dssm_assets.core.config.model import Similarity
from dssm_assets.core.errors import InputError, StorageError
from dssm_assets.core.evaluation.scorer import model_scorer, read_corpus
from dssm_assets.service.bundle.bundle_store import open_bundles
from dssm_assets.service.engine.recall_engine import (
    MERGED_AT_ONCE,
    ListOptions,
    Lists,
    RecallEngine,
    UserRequest,
)
from dssm_assets.service.http.request_body import parse_recall_body
from dssm_assets.steps.scoring import read_fit_data, read_merges
from dssm_assets.steps.stored_interactions import find_event_days, read_interactions_of_users
from dssm_assets.steps.workspace import day_before, open_workspace
from dssm_assets.storage.local_files import ScratchArrays
from dssm_assets_tests import worlds
from dssm_assets_tests.service import bundles
from dssm_assets_tests.service.bundle.published_bundles import PlainBundle, publish_bundle
from dssm_assets_tests.service.http.any_json import bodies
from dssm_assets_tests.worlds import EVALUATION_DAY

K = 15
NOBODY = "nobody"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    workspace = open_workspace(worlds.built_world(tmp_path_factory).copy(tmp_path_factory.mktemp("served") / "world"))
    publish_bundle(workspace)
    return workspace


@pytest.fixture(scope="module")
def engine(workspace):
    return RecallEngine.open(open_bundles(workspace.loaded).root)


def evaluated_lists(workspace, scratch, merge):
    """Returns user -> item ids that the evaluation would rank on the day that the bundle serves first, with its vectors."""
    config, next_day, stored = workspace.config, day_before(EVALUATION_DAY, -1), PlainBundle(workspace)
    items, users = stored.table("item_vectors.arrow"), stored.table("user_vectors.arrow")
    item_ids = items.column("item_id").combine_chunks()
    user_ids = pa.concat_arrays([users.column("user_id").combine_chunks(), pa.array([NOBODY])]).sort()
    model = model_scorer(*read_corpus(items, Similarity.INNER_PRODUCT), users, user_ids)
    days = find_event_days(workspace, next_day)
    shared = SharedData.fit(read_fit_data(workspace, days, item_ids, user_ids, ScratchArrays(scratch)))
    history = read_interactions_of_users(workspace, days.history, user_ids, IdIndex(item_ids))
    own = OwnItems(history.indptr, history.item_index, history.count, history.last_time_ms)
    channels = make_channels(config.channels.depths, shared, own, model, days.now_ms)
    lists = MergedScorer(merge, BlockOfUsers(channels), shared.recent_order).top_items(np.arange(len(user_ids)), K)
    return {
        user: [item_ids[item].as_py() for item in row if item >= 0]
        for user, row in zip(user_ids.to_pylist(), lists.tolist(), strict=True)
    }


@pytest.mark.parametrize("similarity", [0.0, 3.0, -3.0])
def test_served_lists_are_those_that_the_evaluation_ranks(workspace, engine, tmp_path, monkeypatch, similarity):
    merge = next(one for one in read_merges(workspace, EVALUATION_DAY)[0] if one.name == "merged")
    signal = Signal(ChannelName.VECTORS, SIMILARITY)
    changed = {Term(signal): similarity, Term(signal, IS_OWN_ITEM): similarity / 2}
    merge = replace(merge, weights={**merge.weights, **changed})
    monkeypatch.setattr(engine.channels, "_merge", merge)
    evaluated = evaluated_lists(workspace, tmp_path, merge)
    assert set(evaluated) == {*worlds.users(), NOBODY}
    for user, items in evaluated.items():
        assert engine.recall(UserRequest(user, options=ListOptions(K))).item_ids == items
    popular = engine.recall(UserRequest(NOBODY, options=ListOptions(K)))
    assert popular.scores == sorted(engine.channels.popular_items[1].tolist(), reverse=True)[:K]
    assert popular.item_ids != engine.bundle.items.ids_at(engine.bundle.popular_rows[:K])


def test_vectors_alone_are_a_switch(engine):
    vectors, merged = (
        engine.recall_for_user("a0", ListOptions(K, lists=Lists.VECTORS)),
        engine.recall_for_user("a0", ListOptions(K)),
    )
    assert merged.to_dict() == engine.recall_for_user("a0", ListOptions(K, lists=Lists.MERGED)).to_dict()
    assert vectors.sources is None
    assert "sources" not in vectors.to_dict()
    assert vectors.scores != merged.scores
    row = engine.bundle.users.find_row("a0")
    similar = [
        float(engine.bundle.item_vectors[engine.bundle.items.find_row(item)] @ engine.bundle.user_vector(row))
        for item in vectors.item_ids
    ]
    assert vectors.scores == pytest.approx(similar, abs=1e-6)


def test_each_item_says_which_channels_proposed_it(engine):
    answer = engine.recall_for_user("a0", ListOptions(K))
    own = {item for day in range(len(worlds.DAYS)) for item in worlds.bought("a0", day)}
    assert len(answer.sources) == len(answer.item_ids)
    for item, names in zip(answer.item_ids, answer.sources, strict=True):
        assert ("own_history" in names) == (item in own)
        assert not {"own_history", "item_to_item"} <= set(names)
        assert names
    assert answer.scores == sorted(answer.scores, reverse=True)


def test_lists_merged_together_are_those_of_each_alone(engine):
    options = [
        ListOptions(K),
        ListOptions(3, exclude_history=True),
        ListOptions(40, exclude=engine.recall_for_user("a0", ListOptions(5)).item_ids),
        ListOptions(K, lists=Lists.VECTORS),
    ]
    # More users than are merged at once.
    requests = [UserRequest(user, options=one) for user in worlds.users() for one in options] * 3
    assert len(requests) > 2 * MERGED_AT_ONCE
    together = engine.recall_for_users(requests)
    assert together == [engine.recall_for_user(one.user_id, one.options) for one in requests]


def test_a_bundle_without_channels_serves_vectors(tmp_path):
    bundles.write_bundle(tmp_path)
    engine = RecallEngine.open(str(tmp_path))
    user = engine.bundle.users.ids_at(np.array([0]))[0]
    assert engine.recall_for_user(user, ListOptions(2)).sources is None
    with pytest.raises(InputError, match="without channels"):
        engine.recall_for_user(user, ListOptions(2, lists=Lists.MERGED))
    with pytest.raises(InputError, match="exclude_history: expected a bundle with channels"):
        engine.recall_for_user(user, ListOptions(exclude_history=True))


def test_channels_of_another_version_are_refused(workspace, monkeypatch):
    monkeypatch.setattr("dssm_assets.service.engine.channels.CHANNELS_VERSION", 4)
    with pytest.raises(StorageError, match=r"channels\.json has version 5, this version reads 4"):
        RecallEngine.open(open_bundles(workspace.loaded).root)


def test_command_prints_sources_and_takes_the_switch(workspace, capsys):
    arguments = ["recall", "--bundle", open_bundles(workspace.loaded).root, "--user-id", "a0", "-k", "3"]
    assert main(arguments) == 0
    assert "own_history" in capsys.readouterr().out
    assert main([*arguments, "--channels", "vectors", "--json"]) == 0
    assert "sources" not in json.loads(capsys.readouterr().out)


@given(bodies)
@example({"features": {"age": 1}, "history": {"item_ids": "i1;i2"}})
@example({"features": {"age": 1}, "history": {"item_ids": [], "event_times_ms": 5}})
@settings(max_examples=75, suppress_health_check=[HealthCheck.too_slow])
def test_any_request_gives_a_list_or_an_error_of_the_input(engine, body):
    with contextlib.suppress(InputError):
        (answer,) = engine.recall_for_users(parse_recall_body(json.dumps(body).encode()))
        if isinstance(answer, Exception):
            raise answer
