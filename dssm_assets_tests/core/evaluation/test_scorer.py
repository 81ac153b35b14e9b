"""The model as a scorer: vectors are found by id, a user without a vector gets an empty list; lists of any scorer."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from dssm_assets.core.arrays.ragged import IntArray
from dssm_assets.core.channels.merge import DescribedUsers, MergedScorer, default_merges
from dssm_assets.core.channels.sources import OwnItems, SharedData, make_channels
from dssm_assets.core.config.channels import ChannelName
from dssm_assets.core.config.evaluation import Evaluation
from dssm_assets.core.config.model import Similarity
from dssm_assets.core.errors import DuplicateKeyError, InputError
from dssm_assets.core.evaluation.baselines.item_cooccurrence import fit_neighbors
from dssm_assets.core.evaluation.hits import InteractedItems, rank_truth
from dssm_assets.core.evaluation.interactions import Interactions, read_interactions
from dssm_assets.core.evaluation.scorer import ModelScorer, Scorer, model_scorer
from dssm_assets.core.evaluation.truth import Truth
from dssm_assets_tests.core.evaluation.worlds import fitted_scorers, item_events, user_items


def vectors(ids: list[str], rows: list[list[float]], side: str) -> pa.Table:
    return pa.table({f"{side}_id": pa.array(ids), f"{side}_tower_emb": pa.array(rows, pa.list_(pa.float32(), 2))})


ITEMS = vectors(["a", "b", "c"], [[1, 0], [0, 1], [1, 1]], "item")


def test_users_are_matched_by_id_and_unknown_users_get_an_empty_list() -> None:
    users = vectors(["z", "x"], [[0, 1], [1, 0]], "user")
    scorer = model_scorer(ITEMS, users, pa.array(["x", "y", "z"]), Similarity.COSINE)
    index, scores = scorer.top_k(np.array([0, 1, 2]), 2)
    assert index.tolist() == [[0, 2], [-1, -1], [1, 2]]
    np.testing.assert_allclose(scores, [[1, 0.5**0.5], [-np.inf] * 2, [1, 0.5**0.5]], rtol=1e-6)
    assert scorer.top_items(np.array([1, 2]), 4).tolist() == [[-1] * 4, [1, 2, 0, -1]]


def test_repeated_ids_and_unusable_vectors_are_refused_by_name() -> None:
    with pytest.raises(DuplicateKeyError, match="more than once: x"):
        model_scorer(ITEMS, vectors(["x", "x"], [[0, 1], [1, 0]], "user"), pa.array(["x"]), Similarity.COSINE)
    scorer = model_scorer(ITEMS, vectors(["w", "x"], [[1, 0], [0, 0]], "user"), pa.array(["w", "x"]), Similarity.COSINE)
    with pytest.raises(InputError, match="1 of 2 all zeros: x"):
        scorer.top_items(np.array([0, 1]), 1)


def test_a_user_of_several_interests_gets_each_item_once_with_its_best_score() -> None:
    both = pa.array([[1, 0, 0, 1], [0, 2, 0, 1]], pa.list_(pa.float32(), 4))
    users = pa.table({"user_id": pa.array(["x", "y"]), "user_tower_emb": both})
    index, scores = model_scorer(ITEMS, users, pa.array(["x", "y"]), Similarity.INNER_PRODUCT).top_k(np.arange(2), 3)
    # x finds a and b with 1 by either interest, and c = (1, 1) with 1 as well; y finds b and c with 2, a with nothing.
    assert index.tolist() == [[0, 1, 2], [1, 2, 0]]
    assert scores.tolist() == [[1, 1, 1], [2, 2, 0]]


def test_a_width_that_is_not_a_multiple_is_reported() -> None:
    users = pa.table({"user_id": pa.array(["x"]), "user_tower_emb": pa.array([[1, 0, 1]], pa.list_(pa.float32(), 3))})
    with pytest.raises(InputError, match="3"):
        model_scorer(ITEMS, users, pa.array(["x"]), Similarity.COSINE).top_k(np.arange(1), 1)


NUM_USERS, NUM_ITEMS, K = 40, 60, 12


def random_interactions(rng: np.random.Generator, events: int) -> Interactions:
    """Some users have nearly all items, some have none; counts and times tie."""
    users = np.minimum(rng.geometric(0.12, events) - 1, NUM_USERS - 3)
    items = np.minimum(rng.geometric(0.06, events) - 1, NUM_ITEMS - 2)
    columns = {"user_id": users, "item_id": items, "count": rng.integers(1, 3, events)}
    columns["last_event_time_ms"] = rng.integers(0, 4, events)
    return read_interactions(pa.table(columns), pa.array(np.arange(NUM_USERS)), pa.array(np.arange(NUM_ITEMS)))


def random_model(rng: np.random.Generator) -> ModelScorer:
    """Few distinct vectors, none of zeros, so that many scores tie; the last user has no vector."""

    def vectors_of(side: str, count: int) -> pa.Table:
        flat = (rng.integers(-2, 3, (count, 3)) + 0.5).astype(np.float32)
        column = pa.FixedSizeListArray.from_arrays(flat.ravel(), 3)
        return pa.table({f"{side}_id": np.arange(count), f"{side}_tower_emb": column})

    users = pa.array(np.arange(NUM_USERS))
    return model_scorer(vectors_of("item", NUM_ITEMS), vectors_of("user", NUM_USERS - 1), users, Similarity.INNER_PRODUCT)


def full_ranking(scorer: Scorer, dropped: set[tuple[int, int]]) -> list[list[int]]:
    whole = scorer.top_items(np.arange(NUM_USERS), NUM_ITEMS).tolist()
    return [[item for item in row if item >= 0 and (user, item) not in dropped] for user, row in enumerate(whole)]


def merged_scorers(model: ModelScorer, recent: Interactions, window: Interactions, history: Interactions) -> list[Scorer]:
    """Returns merged lists of short channels, of which some users have fewer candidates than K."""
    events = [item_events(one) for one in (window, recent, history)]
    users_per_item = np.bincount(window.item_index, minlength=NUM_ITEMS)
    shared = SharedData(*events, users_per_item, fit_neighbors(user_items(window), 7, min_common_users=2))
    own = OwnItems(history.indptr, history.item_index, history.count, history.last_time_ms)
    channels = make_channels(dict.fromkeys(ChannelName, 4), shared, own, model, now_ms=10_000)
    merges = default_merges([channel.name for channel in channels])
    return [MergedScorer(merge, DescribedUsers(channels), shared.popular_order) for merge in merges]


@pytest.mark.parametrize("seed", range(4))
def test_ranks_of_every_scorer_are_those_in_its_full_ranking(seed: int) -> None:
    """Every user looks for every item and for one outside the corpus, in each kind of list."""
    rng = np.random.Generator(np.random.PCG64(seed))
    recent, window, history = (random_interactions(rng, events) for events in (30, 400, 900))
    rows: IntArray = np.repeat(np.arange(NUM_USERS), NUM_ITEMS + 1)
    items = np.tile(np.arange(-1, NUM_ITEMS), NUM_USERS)
    past = InteractedItems(window.exclusions(NUM_USERS), history.exclusions(NUM_USERS))
    is_repeat, is_known = (own.contains(rows, items) for own in past)
    users = pa.array([f"u{user}" for user in range(NUM_USERS)])
    truth = Truth(users, np.ones(NUM_USERS, bool), rows, items, np.ones(len(rows), bool), is_repeat, is_known)
    seen, ever = (set(zip(one.user_index.tolist(), one.item_index.tolist(), strict=True)) for one in (window, history))
    model = random_model(rng)
    baselines = fitted_scorers(window, recent, history, Evaluation(cooccurrence_neighbors=7))
    for scorer in (model, *baselines, *merged_scorers(model, recent, window, history)):
        (found,) = rank_truth([scorer], truth, past, K, np.ones(truth.num_users, np.bool_))
        for ranks, dropped in zip(found, (set(), seen, ever), strict=True):
            ranking = full_ranking(scorer, dropped)
            expected = [
                ranking[user].index(item) if item in ranking[user][:K] else K
                for user, item in zip(rows.tolist(), items.tolist(), strict=True)
            ]
            assert ranks.tolist() == expected, (scorer.name, len(dropped))
