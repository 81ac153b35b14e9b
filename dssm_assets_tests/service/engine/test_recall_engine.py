"""Recall from a bundle small enough to compute every answer by hand (`bundles.py`)."""

import numpy as np
import pytest

from dssm_assets.core.errors import InputError
from dssm_assets.service.engine.recall_engine import MAX_K, AnswerSource, ListOptions, RecallEngine, UserRequest
from dssm_assets.service.engine.request_encoder import UserInputs
from dssm_assets_tests.service import bundles
from dssm_assets_tests.service.bundles import vector_of

DAY_MS = 86_400_000


@pytest.fixture(scope="module")
def engine(root):
    return RecallEngine.open(root)


def vector(engine, features, history=None):
    found = vector_of(engine, UserInputs(features, history or {}))
    return pytest.approx(found.tolist(), abs=1e-6)


def test_stored_user_gets_items_by_inner_product(engine):
    # u is (1, 0): n0 1, n2 .6, n1 0, n3 -1.
    answer = engine.recall_for_user("u", ListOptions(4))
    assert (answer.source, answer.bundle_id) == (AnswerSource.STORED, engine.bundle.bundle_id)
    assert answer.item_ids == ["n0", "n2", "n1", "n3"]
    assert answer.scores == pytest.approx([1, 0.6, 0, -1])


def test_similar_items_exclude_the_item_itself(engine):
    # n2 (.6, .8): n1 .8, n0 .6, n3 -.6.
    answer = engine.similar_items("n2", ListOptions(3))
    assert (answer.source, answer.item_ids) == (AnswerSource.ITEM, ["n1", "n0", "n3"])
    assert answer.scores == pytest.approx([0.8, 0.6, -0.6])
    assert engine.similar_items("n2", ListOptions(3, ["n0"])).item_ids == ["n1", "n3"]


def test_features_override_the_stored_vector(engine):
    answer = engine.recall(UserRequest(user_id="u", inputs=UserInputs({"city": "y"}), options=ListOptions(k=2)))
    assert (answer.source, answer.item_ids) == (AnswerSource.FEATURES, ["n1", "n2"])


def test_vector_of_features_by_hand(engine):
    # An empty history adds (0, .25).
    assert vector(engine, {"city": "x"}) == [1, 0.25]
    assert vector(engine, {"city": "elsewhere"}) == [-1, -0.75]
    assert vector(engine, {"city": None}) == [0, 0.25]
    # Weights 3 and 1: (3 * (.5, 0) + (0, .5)) / 4.
    assert vector(engine, {"tags": ["p:3", "q:1"]}) == [0.375, 0.125 + 0.25]
    assert vector(engine, {"tags": "p:3\x1dq:1"}) == [0.375, 0.125 + 0.25]


def test_context_of_a_request_changes_its_vector(engine):
    assert vector(engine, {"city": "x", "page": "home"}) == [1, 2.25]
    assert vector(engine, {"page": "home"}) == [0, 2.25]


def test_history_is_the_mean_of_its_last_items(engine):
    # history_length is 2: of n0, n3, n1 the last two count: ((-1, 0) + (0, 1)) / 2. An unknown item is (0, 0) in the mean.
    assert vector(engine, {"city": None}, {"item_ids": ["n0", "n3", "n1"]}) == [-0.5, 0.5]
    assert vector(engine, {"city": None}, {"item_ids": ["n1", "unknown item"]}) == [0, 0.5]
    assert vector(engine, {"city": None}, {"item_ids": "n0;n3;n1"}) == [-0.5, 0.5]
    assert vector(engine, {"city": "x"}, {"item_ids": []}) == [1, 0.25]
    assert vector(engine, {"city": "x", "item_ids": ["n1"]}) == [1, 1]


def test_history_is_sorted_by_its_times(engine):
    times = [3 * DAY_MS, 1 * DAY_MS, 2 * DAY_MS]  # n0 is the newest, then n1
    assert vector(engine, {}, {"item_ids": ["n0", "n3", "n1"], "event_times_ms": times}) == [0.5, 0.5]


def test_attribute_of_the_history_may_be_missing(engine):
    # Brand b of one of two items: the mean over the present ones is (0, -1).
    assert vector(engine, {}, {"item_ids": ["n0", "n1"], "brand": ["b", None]}) == [0.5, -0.5]
    assert vector(engine, {}, {"item_ids": ["n0", "n1"]}) == [0.5, 0.5]


def test_older_items_weigh_less_with_a_half_life(tmp_path):
    bundles.write_bundle(tmp_path, half_life_days=1.0)
    decaying = RecallEngine.open(str(tmp_path))
    # An item that is a day older has half the weight: 2/3 and 1/3.
    history = {"item_ids": ["n0", "n1"], "event_times_ms": [0, DAY_MS]}
    assert vector(decaying, {}, history) == [1 / 3, 2 / 3]
    with pytest.raises(InputError, match="event_times_ms: expected the time of each item"):
        vector_of(decaying, UserInputs({}, {"item_ids": ["n0"]}))


def test_inputs_without_a_feature_are_named(engine):
    answer = engine.recall(UserRequest(inputs=UserInputs({"city": "x", "shoe_size": 44}), options=ListOptions(1)))
    assert answer.ignored == ("shoe_size",)
    assert answer.to_dict()["ignored"] == ("shoe_size",)
    with pytest.raises(InputError, match=r"at least one of: city, tags, page, item_ids.*got shoe_size"):
        engine.recall(UserRequest(inputs=UserInputs({"shoe_size": 44})))


@pytest.mark.parametrize(
    ("features", "history", "message"),
    [
        ({"city": object()}, {}, "request, input city"),
        ({"tags": ["p", 1]}, {}, "request, input tags"),
        ({}, {"item_ids": ["n0"], "brand": ["b", "b"]}, "history__brand"),
        ({}, {"item_ids": ["n0"], "event_times_ms": [1, 2]}, "lists of equal lengths"),
        ({}, {"item_ids": ["n0"], "event_times_ms": ["yesterday"]}, "a list of unix milliseconds"),
        ({}, {"item_ids": ["n0"], "event_times_ms": 5}, "a list of unix milliseconds"),
        ({}, {"item_ids": ["n0"], "event_times_ms": [None]}, "a list of unix milliseconds"),
        ({}, {"item_ids": 5}, "lists or text"),
    ],
)
def test_unusable_inputs_are_named(engine, features, history, message):
    with pytest.raises(InputError, match=message):
        vector_of(engine, UserInputs(features, history))


def test_all_faults_of_a_request_are_reported_at_once(engine):
    with pytest.raises(InputError) as caught:
        vector_of(engine, UserInputs({"city": object()}, {"item_ids": 5}))
    assert len(caught.value.faults) == 2


@pytest.mark.parametrize("k", [0, -1, MAX_K + 1, 2.5, True])
def test_invalid_k_is_refused(engine, k):
    with pytest.raises(InputError, match="k: expected a number from 1"):
        engine.recall_for_user("u", ListOptions(k))


def test_integer_ids_may_be_sent_as_digits(tmp_path):
    items = dict(enumerate(bundles.ITEMS.values(), start=10))
    bundles.write_bundle(tmp_path, items=items, users={7: (1.0, 0.0)})
    engine = RecallEngine.open(str(tmp_path))
    assert engine.recall_for_user("7", ListOptions(2, ["10"])).item_ids == [12, 11]
    assert engine.recall_for_user(7, ListOptions(1)).item_ids == [10]
    with pytest.raises(InputError, match=r"user_id: expected an integer id, got 'u'"):
        engine.recall_for_user("u")
    with pytest.raises(InputError, match=r"2 faults:\nexclude\[0\].*\nexclude\[2\]"):
        engine.recall_for_user(7, ListOptions(1, ["x", 10, "9" * 30]))


def test_lists_with_exclusions_equal_a_sorted_brute_force(tmp_path):
    # Small integers: scores are exact, so equal scores are equal and keep the order of the index.
    random = np.random.default_rng(1)
    vectors = random.integers(-9, 10, (300, 2)).astype(float)
    users = random.integers(-9, 10, (20, 2)).astype(float)
    bundles.write_bundle(
        tmp_path, items=dict(enumerate(map(tuple, vectors.tolist()))), users=dict(enumerate(map(tuple, users.tolist())))
    )
    engine = RecallEngine.open(str(tmp_path))
    for user, vector_of_user in enumerate(users):
        excluded = random.choice(300, random.integers(0, 290), replace=False).tolist()
        k = int(random.integers(1, 310))
        scores = vectors @ vector_of_user
        left = sorted((-scores[item], item) for item in range(300) if item not in set(excluded))
        answer = engine.recall_for_user(user, ListOptions(k, [*excluded, 12345]))
        assert answer.scores == [-score for score, _ in left[:k]]
        # Among equal scores at the end of the list, the index may keep any; before, the order is fixed.
        safe = sum(score < left[:k][-1][0] for score, _ in left[:k])
        assert answer.item_ids[:safe] == [item for _, item in left[:safe]]
        assert len(set(answer.item_ids)) == len(left[:k])
        assert not set(answer.item_ids) & set(excluded)


def test_user_with_several_interests_gets_each_item_once_with_its_best_score(tmp_path):
    bundles.write_bundle(tmp_path, users={"w": (1.0, 0.0, 0.0, 1.0), "z": (-2.0, 0.0, 0.0, 0.5)}, interests=2)
    engine = RecallEngine.open(str(tmp_path))
    # w searches with (1, 0) and (0, 1): n0 1, n1 1, n2 max(.6, .8), n3 max(-1, 0).
    answer = engine.recall_for_user("w", ListOptions(4))
    assert answer.item_ids == ["n0", "n1", "n2", "n3"]
    assert answer.scores == pytest.approx([1, 1, 0.8, 0])
    assert engine.recall_for_user("w", ListOptions(2, ["n1"])).item_ids == ["n0", "n2"]
    # z searches with (-2, 0) and (0, .5): n3 2, n1 .5, n2 .4, n0 0. An item has one vector, beside users with two.
    requests = [UserRequest("z", options=ListOptions(4)), UserRequest(item_id="n2", options=ListOptions(3)), UserRequest("w")]
    together = engine.recall_for_users(requests)
    assert [one.item_ids for one in together[:2]] == [["n3", "n1", "n2", "n0"], ["n1", "n0", "n3"]]
    assert together == [engine.recall(one) for one in requests]


def test_similar_items_ignore_the_popularity_prior(tmp_path):
    items = {"n0": (1.0, 0.0, 5.0), "n1": (0.0, 1.0, 9.0), "n2": (0.6, 0.8, -2.0)}
    bundles.write_bundle(tmp_path, items=items, users={"u": (1.0, 0.0, 1.0)}, has_prior=True)
    engine = RecallEngine.open(str(tmp_path))
    # (1, 0, 1): n1 0 + 9, n0 1 + 5, n2 .6 - 2. Similar to n0: n2 with .6, n1 with 0.
    assert engine.recall_for_user("u", ListOptions(3)).scores == pytest.approx([9, 6, -1.4])
    found = engine.similar_items("n0", ListOptions(2))
    assert (found.item_ids, found.scores) == (["n2", "n1"], pytest.approx([0.6, 0]))
