"""Events of a request on top of what a bundle stores of its users (`bundles.py`, stores_inputs)."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from dssm_assets.core.errors import InputError, StorageError
from dssm_assets.service.engine.recall_engine import ListOptions, Lists, RecallEngine, UserRequest
from dssm_assets.service.engine.request_encoder import UserInputs
from dssm_assets_tests.service.bundles import FG, renew_manifest, write_bundle

VECTORS = {"u": (1.5, 0.5), "v": (0.0, 1.75)}
"""City and history of u: (1, 0) + (n0 + n1) / 2; city, tag and no history of v: (0, 1) + (0, .5) + (0, .25)."""


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    root = tmp_path_factory.mktemp("serving")
    write_bundle(root, users=VECTORS, has_channels=True, stores_inputs=True)
    return RecallEngine.open(str(root))


def recall(engine, user=None, lists=None, **inputs):
    return engine.recall(UserRequest(user_id=user, inputs=UserInputs(**inputs), options=ListOptions(4, lists=lists)))


def scores(engine, user=None, **inputs):
    answer = recall(engine, user, Lists.VECTORS, **inputs)
    return dict(zip(answer.item_ids, answer.scores, strict=True))


def same(one, other):
    return (one.item_ids, one.scores, one.sources) == (other.item_ids, other.scores, other.sources)


def test_events_are_added_to_the_stored_history(engine):
    # Of n0, n1 and n2 the tower reads the last two, (.3, .9); with the city (1.3, .9).
    found = scores(engine, "u", events={"item_ids": ["n2"], "event_times_ms": [3000]})
    assert found == pytest.approx({"n2": 1.5, "n0": 1.3, "n1": 0.9, "n3": -1.3})


def test_own_items_and_neighbours_are_of_both(engine):
    before, after = recall(engine, "u"), recall(engine, "u", events={"item_ids": ["n2"], "event_times_ms": [3000]})
    own = [
        {item for item, names in zip(one.item_ids, one.sources, strict=True) if "own_history" in names}
        for one in (before, after)
    ]
    assert own == [{"n0", "n1"}, {"n0", "n1", "n2"}]
    # n3 is the neighbour of n2.
    assert "item_to_item" not in before.sources[before.item_ids.index("n3")]
    assert "item_to_item" in after.sources[after.item_ids.index("n3")]


@pytest.mark.parametrize("lists", list(Lists))
def test_the_list_is_that_of_the_whole_history_sent(engine, lists):
    # n1 at 2000 is stored already, n3 was before n2, n2 at 3000 is sent twice.
    events = {"item_ids": ["n2", "n1", "n3", "n2"], "event_times_ms": [3000, 2000, 2500, 3000]}
    whole = {"item_ids": ["n0", "n1", "n3", "n2"], "event_times_ms": [1000, 2000, 2500, 3000]}
    added, replaced = recall(engine, "u", lists, events=events), recall(engine, "u", lists, history=whole)
    assert same(added, replaced)
    assert not same(added, recall(engine, "u", lists))
    assert (added.replaced, replaced.replaced) == ((), ("history",))


def test_events_of_several_users_together_are_those_of_each_alone(engine):
    events = [{"item_ids": ["n2"], "event_times_ms": [3000]}, {"item_ids": ["n1", "n0"], "event_times_ms": [10, 5]}]
    requests = [UserRequest(user, UserInputs(events=one), ListOptions(4)) for user in ("u", "v", "x") for one in events]
    assert engine.recall_for_users(requests) == [recall(engine, one.user_id, events=one.inputs.events) for one in requests]


def test_events_without_times_are_new_and_the_newest(engine):
    # The last two are n1 and n1 again.
    assert scores(engine, "u", events={"item_ids": ["n1", "n1"]}) == pytest.approx({"n2": 1.4, "n0": 1, "n1": 1, "n3": -1})


def test_other_lists_of_events_are_read_too(engine):
    # Brand b is (0, -1); the stored n1 has none, so that of n2 is the mean.
    events = {"item_ids": ["n1", "n2"], "event_times_ms": [2000, 3000], "brand": ["none", "b"]}
    assert scores(engine, "u", events=events)["n1"] == pytest.approx(0.9 - 1)


def test_an_unknown_user_has_the_events_alone(engine):
    events = {"item_ids": ["n1", "n0"], "event_times_ms": [20, 10]}
    for user in (None, "x"):
        answer = recall(engine, user, events=events)
        assert same(answer, recall(engine, user, history={"item_ids": ["n0", "n1"], "event_times_ms": [10, 20]}))
        assert (answer.source, answer.replaced) == ("features", ())


def test_what_is_not_sent_is_as_stored_and_the_answer_says_what_is_not(engine):
    def of(**inputs):
        answer = recall(engine, "u", Lists.VECTORS, **inputs)
        return dict(zip(answer.item_ids, answer.scores, strict=True)), answer.replaced

    found, replaced = of(features={"page": "home"})  # (1.5, .5) + (0, 2)
    assert (found["n1"], found["n0"], replaced) == (pytest.approx(2.5), pytest.approx(1.5), ())
    found, replaced = of(features={"city": "y"})  # (0, 1) + (.5, .5)
    assert (found["n1"], found["n0"], replaced) == (pytest.approx(1.5), pytest.approx(0.5), ("features",))
    found, replaced = of(history={"item_ids": ["n1"]})  # (1, 0) + (0, 1)
    assert (found["n1"], found["n0"], replaced) == (pytest.approx(1), pytest.approx(1), ("history",))
    assert of(features={"city": "y"}, history={"item_ids": ["n1"]})[1] == ("features", "history")


@pytest.mark.parametrize(
    ("inputs", "where"),
    [
        ({"events": {"item_ids": ["n1"]}, "history": {"item_ids": ["n0"]}}, "history, events: expected one of them, got both"),
        ({"events": {"item_ids": ["n1"], "event_times_ms": [1, 2]}}, "as many event_times_ms as item_ids, got 1 and 2"),
        ({"events": {"item_ids": ["n1"], "event_times_ms": [1.5]}}, "event_times_ms of integers"),
        (
            {"events": {"item_ids": ["n1"], "event_times_ms": [1], "brand": ["b", "b"]}},
            "events, brand: expected 1 values, got 2",
        ),
        ({"events": {"item_ids": ["n1"], "event_times_ms": [1], "brand": "b"}}, "events, brand: expected a list, got str"),
        ({"events": {"item_ids": "n1"}}, "events, item_ids: expected a list, got str"),
        (
            {"events": {"item_ids": ["n1"]}, "features": {"city": "y", "history__item_ids": ["n0"], "brand": ["b"]}},
            "features.history__item_ids, features.brand, events: expected one of them, got both",
        ),
        ({"events": {"shoe_size": [44]}}, "got shoe_size"),
    ],
)
def test_wrong_events_are_errors_of_the_input(engine, inputs, where):
    with pytest.raises(InputError, match=where):
        recall(engine, "u", **inputs)


def test_a_bundle_without_stored_histories_says_so(tmp_path):
    write_bundle(tmp_path, has_channels=True)
    engine = RecallEngine.open(str(tmp_path))
    events = {"item_ids": ["n1"]}
    with pytest.raises(InputError, match=r"a bundle with users' histories.*send the whole history"):
        recall(engine, "u", events=events)
    assert same(recall(engine, "x", events=events), recall(engine, "x", history=events))
    assert recall(engine, "u", features={"city": "y"}).replaced == ("features", "history")


@pytest.mark.parametrize("name", ["events", "history"])
@pytest.mark.parametrize("times", [{}, {"event_times_ms": [3000, 2000]}])
def test_items_may_have_the_name_of_their_sequence(engine, name, times):
    plain, qualified = (
        recall(engine, "u", **{name: {form: ["n2", "n1"], **times}}) for form in ("item_ids", "history__item_ids")
    )
    assert plain == qualified
    assert "own_history" in qualified.sources[qualified.item_ids.index("n2")]


def test_a_name_that_is_a_feature_too_replaces_no_history(tmp_path, monkeypatch):
    feature = {"feature_name": "city", "feature_type": "id_feature", "expression": "user:brand", "value_dim": 1}
    monkeypatch.setitem(FG, "features", [feature, *FG["features"][1:]])
    write_bundle(tmp_path, users=VECTORS, has_channels=True, stores_inputs=True)
    engine = RecallEngine.open(str(tmp_path))
    # Brand y is (0, 1), as city; with the last two of n0, n1 and n2: (.3, 1.9).
    events = {"item_ids": ["n2"], "event_times_ms": [3000]}
    assert recall(engine, "u", features={"brand": "y"}, events=events).replaced == ("features",)
    assert scores(engine, "u", features={"brand": "y"}, events=events)["n1"] == pytest.approx(1.9)


def test_a_tower_that_reads_no_history_keeps_the_stored_vector(engine, monkeypatch):
    monkeypatch.setattr(engine.tower.encoder, "has_history", False)
    events = {"item_ids": ["n2", "n1"], "event_times_ms": [3000, 2000]}
    assert scores(engine, "u", events=events) == scores(engine, "u")
    answer = recall(engine, "u", events={**events, "shoe_size": [44, 45]})
    assert "own_history" in answer.sources[answer.item_ids.index("n2")]
    assert (answer.source, answer.ignored) == ("stored", ("shoe_size",))
    answer = recall(engine, "u", history=events)
    own = {item for item, names in zip(answer.item_ids, answer.sources, strict=True) if "own_history" in names}
    assert (answer.source, answer.replaced, own) == ("stored", ("history",), {"n1", "n2"})


def test_stored_and_computed_interests_are_merged_together(tmp_path, monkeypatch):
    write_bundle(tmp_path, users={"u": (1, 0, 0, 1), "v": (0, 1, 0, 0)}, interests=2, has_channels=True, stores_inputs=True)
    engine, sizes = RecallEngine.open(str(tmp_path)), []
    merge = engine.channels.merge
    monkeypatch.setattr(engine.channels, "merge", lambda own, *rest: sizes.append(len(own)) or merge(own, *rest))
    monkeypatch.setattr(engine.tower, "compute_vectors", lambda inputs: [np.eye(2, dtype=np.float32) for _ in inputs])
    stored, computed = engine.recall_for_users([UserRequest("u"), UserRequest("u", UserInputs({"page": "home"}))])
    assert sizes == [2]
    assert same(stored, computed)


def test_another_number_of_users_is_refused(tmp_path):
    folder = write_bundle(tmp_path, stores_inputs=True)
    path = folder / "user_inputs.arrow"
    table = pa.ipc.open_file(path.read_bytes()).read_all().slice(1).drop_columns(["city"])
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    renew_manifest(folder)
    with pytest.raises(StorageError, match=r"user_inputs\.arrow has 1 rows for 2 users, without city"):
        RecallEngine.open(str(tmp_path))
