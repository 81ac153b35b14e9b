"""Places that are found without a list are those in the list."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from dssm_assets.core.arrays.ragged import IntArray
from dssm_assets.core.config.evaluation import Evaluation
from dssm_assets.core.config.model import Similarity
from dssm_assets.core.evaluation.baselines.suite import fit_baselines
from dssm_assets.core.evaluation.interactions import Interactions, read_interactions
from dssm_assets.core.evaluation.places import Asked, count_below, few_among, find, hit_ranks
from dssm_assets.core.evaluation.scorer import Scorer, model_scorer

USERS, ITEMS, K = 40, 60, 12


def taken(rng: np.random.Generator, events: int) -> Interactions:
    """Some users take nearly everything, some nothing; counts and times tie."""
    users = np.minimum(rng.geometric(0.12, events) - 1, USERS - 3)
    items = np.minimum(rng.geometric(0.06, events) - 1, ITEMS - 2)
    columns = {"user_id": users, "item_id": items, "count": rng.integers(1, 3, events)}
    columns["last_event_time_ms"] = rng.integers(0, 4, events)
    return read_interactions(pa.table(columns), pa.array(np.arange(USERS)), pa.array(np.arange(ITEMS)))


def every_pair() -> tuple[IntArray, IntArray]:
    """Every user asks for every item and for one outside the corpus."""
    return np.repeat(np.arange(USERS), ITEMS + 1), np.tile(np.arange(-1, ITEMS), USERS)


def vectors(rng: np.random.Generator, count: int) -> pa.Array:
    """Few distinct vectors, none of zeros, so that many scores tie."""
    flat = (rng.integers(-2, 3, (count, 3)) + 0.5).astype(np.float32)
    return pa.FixedSizeListArray.from_arrays(flat.ravel(), 3)


def model(rng: np.random.Generator) -> Scorer:
    items = pa.table({"item_id": np.arange(ITEMS), "item_tower_emb": vectors(rng, ITEMS)})
    some = np.arange(USERS - 1)  # the last user has no vector
    users = pa.table({"user_id": some, "user_tower_emb": vectors(rng, len(some))})
    return model_scorer(items, users, pa.array(np.arange(USERS)), Similarity.INNER_PRODUCT)


@pytest.mark.parametrize("seed", range(4))
def test_places_are_those_in_the_lists(seed: int) -> None:
    rng = np.random.Generator(np.random.PCG64(seed))
    recent, window, history = (taken(rng, events) for events in (30, 400, 900))
    rows, items = every_pair()
    without = window.exclusions(USERS)
    for scorer in (model(rng), *fit_baselines(window, recent, history, Evaluation(cooccurrence_neighbors=7))):
        places = scorer.places(Asked(np.arange(USERS), rows, items, without), K)
        for got, excluded in ((places.free, None), (places.fresh, without)):
            lists = scorer.top_items(np.arange(USERS), K, excluded)
            assert got.tolist() == hit_ranks(lists, rows, items).tolist(), (scorer.name, excluded is None)


def test_by_hand() -> None:
    assert count_below(np.array([0, 0, 1]), np.array([5, 2, 0]), np.array([0, 0, 1, 2]), np.array([5, 9, 0, 3])).tolist() == [
        1,
        2,
        0,
        0,
    ]
    assert find(np.array([0, 1, 1]), np.array([3, 3, -1]), np.array([0, 0, 1]), np.array([1, 3, 2])).tolist() == [1, -1, -1]
    assert few_among(np.array([7, 4, 7]), np.array([9, 7, 3, 7])).tolist() == [1, -1, 1]
    assert few_among(np.array([7]), np.zeros(0, np.int64)).tolist() == [-1]
