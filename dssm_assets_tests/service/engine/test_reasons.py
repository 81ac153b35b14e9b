"""Why an item is in a merged list: sums of signals, neighbors among the user's items, and events that carry the vector's score."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from contextlib import closing
from dataclasses import replace

import pytest

from dssm_assets.cli import main
from dssm_assets.core.channels.merge import SIGNALS, Term
from dssm_assets.core.errors import InputError
from dssm_assets.service.engine.live import LiveEngine
from dssm_assets.service.engine.recall_engine import ListOptions, Lists, RecallEngine, UserRequest
from dssm_assets.service.engine.request_encoder import UserInputs
from dssm_assets.service.http.answers import ARROW, ItemList
from dssm_assets_tests.service import bundles
from dssm_assets_tests.service.http.servers import Client, serving

EXPLAINED = ListOptions(3, explain=True)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explained")
    bundles.write_bundle(folder, has_channels=True, stores_inputs=True)
    return str(folder)


@pytest.fixture(scope="module")
def engine(root):
    return RecallEngine.open(root)


INPUTS = [
    UserInputs(),
    UserInputs(features={"city": "y"}),
    UserInputs(events={"item_ids": ["n2", "n3"], "event_times_ms": [3000, 4000]}),
    UserInputs(history={"item_ids": ["n3"], "event_times_ms": [3000]}),
]


@pytest.mark.parametrize("inputs", INPUTS)
@pytest.mark.parametrize("user", ["u", "v", "somebody"])
def test_signals_sum_to_the_score_and_the_list_stays_as_it_is(engine, user, inputs):
    plain = engine.recall(UserRequest(user, inputs, ListOptions(3)))
    explained = engine.recall(UserRequest(user, inputs, EXPLAINED))
    assert "reasons" not in plain.to_dict()
    assert (explained.item_ids, explained.scores) == (plain.item_ids, plain.scores)
    if plain.source.value == "popular":
        assert explained.reasons is None
        return
    sums = [sum(one.signals.values()) for one in explained.reasons]
    assert sums == pytest.approx(plain.scores, abs=1e-6)


def test_a_product_counts_half_for_each_of_its_signals(engine, monkeypatch):
    recent, own = (next(one for one in SIGNALS if one.name == name) for name in ("window_events", "is_own"))
    weights = {Term(one): 0.0 for one in SIGNALS} | {Term(own): 1.0, Term(own, recent): 2.0, Term(recent, recent): 0.5}
    monkeypatch.setattr(engine.channels, "_merge", replace(engine.channels._merge, weights=weights))
    answer = engine.recall(UserRequest("u", options=EXPLAINED))
    found = dict(zip(answer.item_ids, answer.reasons, strict=True))["n0"].signals
    events = engine.channels._shared.event_signals[0][engine.bundle.items.find_row("n0")]
    # is_own is 1: 1 * 1 + 2 * 1 * events / 2; window_events: the other half, and the square whole.
    assert found["own_history.is_own"] == pytest.approx(1 + events)
    assert found["recent_popularity.window_events"] == pytest.approx(events + 0.5 * events**2)


def test_neighbors_and_events_that_carry_an_item_are_named(engine):
    # n0 and n1 are neighbors, n2 and n3 too; u had n0, then n1.
    answer = engine.recall(UserRequest("u", UserInputs(events={"item_ids": ["n3"], "event_times_ms": [3000]}), EXPLAINED))
    reasons = dict(zip(answer.item_ids, answer.reasons, strict=True))
    assert reasons["n2"].goes_with == ["n3"]
    # The tower reads the mean of the last two: n1 (0, 1) and n3 (-1, 0), (-.5, .5). Without n3 it is that of n0 (1, 0) and n1, (.5, .5);
    # without n1 (0, 0). n2 is (.6, .8), so its similarity changes by .6 * 1 and by -.6 * -.5 - .8 * .5 = -.1; without n0 by nothing.
    without = dict(reasons["n2"].without)
    assert without["n3"] == pytest.approx(0.6, abs=1e-6)
    assert without["n1"] == pytest.approx(-0.1, abs=1e-6)
    assert without["n0"] == pytest.approx(0.0, abs=1e-6)
    assert [item for item, _ in reasons["n2"].without][:2] == ["n3", "n1"]


def test_together_as_alone_and_only_where_it_is_asked(engine):
    requests = [
        UserRequest("u", options=EXPLAINED),
        UserRequest("v", options=ListOptions(3)),
        UserRequest("v", options=EXPLAINED),
    ]
    together = engine.recall_for_users(requests)
    assert together == [engine.recall(one) for one in requests]
    assert [one.reasons is not None for one in together] == [True, False, True]
    assert engine.recall_for_user("u", ListOptions(3, lists=Lists.VECTORS, explain=True)).reasons is None


def test_a_bundle_without_channels_refuses(tmp_path):
    bundles.write_bundle(tmp_path)
    with pytest.raises(InputError, match="explain: expected a bundle with channels"):
        RecallEngine.open(str(tmp_path)).recall_for_user("u", EXPLAINED)


def test_command_prints_the_reasons(root, capsys):
    assert main(["recall", "--bundle", root, "--user-id", "u", "-k", "3", "--explain"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].endswith("channels  why")
    assert "own_history +" in lines[3]
    assert any("goes with n" in line for line in lines)


def test_the_service_answers_with_reasons_one_list_at_a_time_in_json(root):
    with serving(LiveEngine(root)) as port, closing(Client(port)) as client:
        for status, answer in (
            client.get("/recall?user_id=u&k=2&explain=true"),
            client.send("POST", "/recall", {"user_id": "u", "k": 2, "explain": True}),
        ):
            assert status == 200
            assert [sum(one["signals"].values()) for one in answer["reasons"]] == pytest.approx(answer["scores"])
            described = ItemList.model_validate(answer).model_dump(mode="json", exclude_none=True)["reasons"]
            assert described == answer["reasons"]
        body = {"requests": [{"user_id": "u", "k": 2}, {"user_id": "u", "explain": True}]}
        first, second = client.send("POST", "/recall/batch", body)[1]["answers"]
        assert first["item_ids"]
        assert second["faults"][0]["where"] == "body.requests.1.explain"
        arrow = urllib.request.Request(f"http://127.0.0.1:{port}/recall?user_id=u&explain=true", headers={"Accept": ARROW})
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(arrow)
        assert (refused.value.code, json.load(refused.value)["faults"][0]["where"]) == (400, "explain")
