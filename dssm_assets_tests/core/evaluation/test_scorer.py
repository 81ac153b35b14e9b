"""The model as a scorer: vectors are found by id, a user without a vector gets an empty list; lists of any scorer."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.core.arrays.ids import IdIndex
from dssm_assets.core.arrays.ragged import IntArray, ItemSets
from dssm_assets.core.channels.channel import OwnItems, SharedData, make_channels
from dssm_assets.core.channels.merge import channel_scorers, default_merges
from dssm_assets.core.config.channels import ChannelName
from dssm_assets.core.config.evaluation import Evaluation
from dssm_assets.core.config.model import Similarity
from dssm_assets.core.errors import InputError
from dssm_assets.core.evaluation.hits import rank_truth
from dssm_assets.core.evaluation.interactions import Interactions, sum_interactions
from dssm_assets.core.evaluation.item_neighbors import fit_neighbors
from dssm_assets.core.evaluation.scorer import (
    ColdModelScorer,
    InteractedItems,
    KnownLists,
    ModelScorer,
    Scorer,
    model_scorer,
    rank_items,
    read_corpus,
)
from dssm_assets.core.evaluation.truth import Truth
from dssm_assets.testing import item_events, user_items
from dssm_assets_tests.core.arrays.item_sets import item_sets
from dssm_assets_tests.core.evaluation.worlds import FixedScorer, fitted_scorers


def vectors(ids: list[str], rows: list[list[float]], side: str) -> pa.Table:
    return pa.table({f"{side}_id": pa.array(ids), f"{side}_tower_emb": pa.array(rows, pa.list_(pa.float32(), 2))})


ITEMS = vectors(["a", "b", "c"], [[1, 0], [0, 1], [1, 1]], "item")


def scorer_of(items: pa.Table, users: pa.Table, user_ids: pa.Array, similarity: Similarity) -> ModelScorer:
    return model_scorer(*read_corpus(items, similarity), users, user_ids)


def test_users_are_matched_by_id_and_unknown_users_get_an_empty_list() -> None:
    users = vectors(["z", "x"], [[0, 1], [1, 0]], "user")
    scorer = scorer_of(ITEMS, users, pa.array(["x", "y", "z"]), Similarity.COSINE)
    index, scores = scorer.top_k(np.array([0, 1, 2]), 2)
    assert index.tolist() == [[0, 2], [-1, -1], [1, 2]]
    np.testing.assert_allclose(scores, [[1, 0.5**0.5], [-np.inf] * 2, [1, 0.5**0.5]], rtol=1e-6)
    assert scorer.top_items(np.array([1, 2]), 4).tolist() == [[-1] * 4, [1, 2, 0, -1]]


def test_unusable_vectors_are_refused_by_name() -> None:
    with pytest.raises(InputError, match="1 of 2 all zeros: b"):
        read_corpus(vectors(["a", "b"], [[1, 0], [0, 0]], "item"), Similarity.COSINE)


def test_a_user_of_several_interests_gets_each_item_once_with_its_best_score() -> None:
    both = pa.array([[1, 0, 0, 1], [0, 2, 0, 1]], pa.list_(pa.float32(), 4))
    users = pa.table({"user_id": pa.array(["x", "y"]), "user_tower_emb": both})
    index, scores = scorer_of(ITEMS, users, pa.array(["x", "y"]), Similarity.INNER_PRODUCT).top_k(np.arange(2), 3)
    # x finds a and b with 1 by either interest, and c = (1, 1) with 1 as well; y finds b and c with 2, a with nothing.
    assert index.tolist() == [[0, 1, 2], [1, 2, 0]]
    assert scores.tolist() == [[1, 1, 1], [2, 2, 0]]


def test_lists_of_the_same_users_are_searched_once() -> None:
    searched: list[tuple[list[int], int]] = []

    class Model(FixedScorer):
        def top_items(self, user_rows: np.ndarray, k: int) -> np.ndarray:
            searched.append((user_rows.tolist(), k))
            return super().top_items(user_rows, k)

    known = KnownLists(Model(np.array([[7, 8, 9], [1, 2, 3]])), 2)
    for users, k in (([0, 1], 1), ([0, 1], 2), ([0, 1], 3), ([1], 1)):
        assert known.top_items(np.array(users), k).tolist() == [[[7, 8, 9], [1, 2, 3]][user][:k] for user in users]
    assert searched == [([0, 1], 2), ([0, 1], 3)]


ITEMS_OF_A_USER = st.sets(st.integers(0, 11))


@given(st.data())
def test_lists_without_own_items_equal_rankings_without_them(data: st.DataObject) -> None:
    num_items, k = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 6))
    users = data.draw(st.integers(1, 6))
    orders = [data.draw(st.permutations(range(num_items)))[: data.draw(st.integers(0, num_items))] for _ in range(users)]
    window = [data.draw(ITEMS_OF_A_USER) for _ in range(users)]
    history = [items | data.draw(ITEMS_OF_A_USER) for items in window]
    lists = np.array([[*order, *[-1] * (num_items - len(order))] for order in orders], dtype=np.int64)
    past = InteractedItems(item_sets(window), item_sets(history))
    found = rank_items(FixedScorer(lists), np.arange(users), past, k)
    for row, order in enumerate(orders):
        for ranked, dropped in zip(found, (set(), window[row], history[row]), strict=True):
            free = [item for item in order if item not in dropped]
            assert ranked[row].tolist() == [*free, *[-1] * k][:k]


def test_lists_are_long_enough_however_many_own_items_are_ranked_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Users 0 to 39 took their first 7 * user items, so that most are ranked again, few at a time."""
    asked: list[tuple[int, int]] = []

    class Recording(FixedScorer):
        def top_items(self, user_rows: np.ndarray, k: int) -> np.ndarray:
            asked.append((len(user_rows), k))
            return super().top_items(user_rows, k)

    monkeypatch.setattr("dssm_assets.core.evaluation.scorer.MAX_ENTRIES", 600)
    past = InteractedItems(ItemSets.empty(40), item_sets([range(7 * user) for user in range(40)]))
    found = rank_items(Recording(np.tile(np.arange(400), (40, 1))), np.arange(40), past, 5)
    assert found.without_history.tolist() == [list(range(7 * user, 7 * user + 5)) for user in range(40)]
    assert found.everything.tolist() == found.without_window.tolist() == [[0, 1, 2, 3, 4]] * 40
    assert asked == [(40, 10), *[(2, 278)] * 19, (1, 278)]  # 5 + 39 * 7


NUM_USERS, NUM_ITEMS, K = 40, 60, 12


def random_interactions(rng: np.random.Generator, events: int, earlier: Interactions | None = None) -> Interactions:
    """Some users have nearly all items, some have none; counts and times tie."""
    users = np.minimum(rng.geometric(0.12, events) - 1, NUM_USERS - 3)
    items = np.minimum(rng.geometric(0.06, events) - 1, NUM_ITEMS - 2)
    columns = {"user_id": users, "item_id": items, "count": rng.integers(1, 3, events)}
    columns["last_event_time_ms"] = rng.integers(0, 4, events)
    return sum_interactions(
        [pa.table(columns)], pa.array(np.arange(NUM_USERS)), IdIndex(pa.array(np.arange(NUM_ITEMS))), earlier
    )


def random_model(rng: np.random.Generator) -> ModelScorer:
    """Few distinct vectors, none of zeros, so that many scores tie; the last user has no vector."""

    def vectors_of(side: str, count: int) -> pa.Table:
        flat = (rng.integers(-2, 3, (count, 3)) + 0.5).astype(np.float32)
        column = pa.FixedSizeListArray.from_arrays(flat.ravel(), 3)
        return pa.table({f"{side}_id": np.arange(count), f"{side}_tower_emb": column})

    users = pa.array(np.arange(NUM_USERS))
    return scorer_of(vectors_of("item", NUM_ITEMS), vectors_of("user", NUM_USERS - 1), users, Similarity.INNER_PRODUCT)


def full_ranking(scorer: Scorer, dropped: set[tuple[int, int]]) -> list[list[int]]:
    whole = scorer.top_items(np.arange(NUM_USERS), NUM_ITEMS).tolist()
    return [[item for item in row if item >= 0 and (user, item) not in dropped] for user, row in enumerate(whole)]


def merged_scorers(model: ModelScorer, recent: Interactions, window: Interactions, history: Interactions) -> list[Scorer]:
    """Returns merged lists of short channels, of which some users have fewer candidates than K."""
    events = [item_events(one) for one in (window, recent, history)]
    users_per_item = np.bincount(window.item_index, minlength=NUM_ITEMS)
    shared = SharedData(
        *events,
        users_per_item,
        fit_neighbors(user_items(window), NUM_ITEMS, num_neighbors=7),
    )
    own = OwnItems(history.indptr, history.item_index, history.count, history.last_time_ms)
    channels = make_channels(dict.fromkeys(ChannelName, 4), shared, own, model, now_ms=10_000)
    merges = default_merges([channel.name for channel in channels])
    return channel_scorers(channels, merges, shared.recent_order)


@pytest.mark.parametrize("seed", range(4))
def test_ranks_of_every_scorer_are_those_in_its_full_ranking(seed: int) -> None:
    """Every user looks for every item and for one outside the corpus, in each kind of list."""
    rng = np.random.Generator(np.random.PCG64(seed))
    recent, window = (random_interactions(rng, events) for events in (30, 400))
    history = random_interactions(rng, 500, window)
    rows: IntArray = np.repeat(np.arange(NUM_USERS), NUM_ITEMS + 1)
    items = np.tile(np.arange(-1, NUM_ITEMS), NUM_USERS)
    past = InteractedItems(window.exclusions, history.exclusions)
    users = pa.array([f"u{user}" for user in range(NUM_USERS)])
    flags = (np.ones(len(rows), bool), past.window.contains(rows, items))
    truth = Truth(users, np.ones(NUM_USERS, bool), rows, items, *flags)
    seen, ever = (set(zip(one.user_index.tolist(), one.item_index.tolist(), strict=True)) for one in (window, history))
    model = random_model(rng)
    baselines = fitted_scorers(window, recent, history, Evaluation())
    for scorer in (model, *baselines, *merged_scorers(model, recent, window, history)):
        found = rank_truth([scorer], truth, past, K, np.ones(truth.num_users, np.bool_), lambda users: None)[scorer.name]
        for ranks, dropped in zip(found, (set(), seen, ever), strict=True):
            ranking = full_ranking(scorer, dropped)
            expected = [
                ranking[user].index(item) if item in ranking[user][:K] else K
                for user, item in zip(rows.tolist(), items.tolist(), strict=True)
            ]
            assert ranks.tolist() == expected, (scorer.name, len(dropped))


@pytest.mark.parametrize(("cold", "expected"), [([1, 3], [[3, 1, -1]]), ([], [[-1, -1, -1]])])
def test_the_model_ranks_cold_items_among_themselves(cold: list[int], expected: list[list[int]]) -> None:
    def table(side: str, ids: list[str], vectors: list[list[float]]) -> pa.Table:
        flat = pa.FixedSizeListArray.from_arrays(pa.array(np.array(vectors, np.float32).ravel()), 2)
        return pa.table({f"{side}_id": ids, f"{side}_tower_emb": flat})

    items = table("item", ["a", "b", "c", "d"], [[9, 0], [1, 0], [8, 0], [2, 0]])
    corpus = read_corpus(items, Similarity.INNER_PRODUCT)
    model = model_scorer(*corpus, table("user", ["u"], [[1, 0]]), pa.array(["u"]))
    assert ColdModelScorer(model, np.array(cold, np.int64)).top_items(np.array([0]), 3).tolist() == expected
