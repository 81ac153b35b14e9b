"""The model as a scorer: vectors are found by id, a user without one gets nothing."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from dssm_assets.core.arrays.ragged import Exclusions
from dssm_assets.core.config.model import Similarity
from dssm_assets.core.errors import DuplicateKeyError, InputError
from dssm_assets.core.evaluation.scorer import model_scorer


def vectors(ids: list[str], rows: list[list[float]], side: str) -> pa.Table:
    return pa.table({f"{side}_id": pa.array(ids), f"{side}_tower_emb": pa.array(rows, pa.list_(pa.float32(), 2))})


ITEMS = vectors(["a", "b", "c"], [[1, 0], [0, 1], [1, 1]], "item")


def test_users_are_matched_by_id_and_strangers_get_an_empty_list() -> None:
    users = vectors(["z", "x"], [[0, 1], [1, 0]], "user")
    scorer = model_scorer(ITEMS, users, pa.array(["x", "y", "z"]), Similarity.COSINE)
    index, scores = scorer.top_k(np.array([0, 1, 2]), 2, None)
    assert index.tolist() == [[0, 2], [-1, -1], [1, 2]]
    np.testing.assert_allclose(scores, [[1, 0.5**0.5], [-np.inf] * 2, [1, 0.5**0.5]], rtol=1e-6)
    excluded = Exclusions(np.array([0, 0, 2]), np.array([1, 2]))
    assert scorer.top_items(np.array([1, 2]), 2, excluded).tolist() == [[-1, -1], [0, -1]]


def test_two_vectors_of_one_id_and_broken_vectors_are_refused_by_name() -> None:
    with pytest.raises(DuplicateKeyError, match="more than once: x"):
        model_scorer(ITEMS, vectors(["x", "x"], [[0, 1], [1, 0]], "user"), pa.array(["x"]), Similarity.COSINE)
    scorer = model_scorer(ITEMS, vectors(["w", "x"], [[1, 0], [0, 0]], "user"), pa.array(["w", "x"]), Similarity.COSINE)
    with pytest.raises(InputError, match="1 of 2 all zeros: x"):
        scorer.top_items(np.array([0, 1]), 1, None)


def test_a_user_of_several_interests_gets_each_item_once_with_its_best_score() -> None:
    both = pa.array([[1, 0, 0, 1], [0, 2, 0, 1]], pa.list_(pa.float32(), 4))
    users = pa.table({"user_id": pa.array(["x", "y"]), "user_tower_emb": both})
    index, scores = model_scorer(ITEMS, users, pa.array(["x", "y"]), Similarity.INNER_PRODUCT).top_k(np.arange(2), 3, None)
    # x finds a and b with 1 by either interest, and c = (1, 1) with 1 as well; y finds b and c with 2, a with nothing.
    assert index.tolist() == [[0, 1, 2], [1, 2, 0]]
    assert scores.tolist() == [[1, 1, 1], [2, 2, 0]]


def test_a_width_that_is_no_multiple_is_named() -> None:
    users = pa.table({"user_id": pa.array(["x"]), "user_tower_emb": pa.array([[1, 0, 1]], pa.list_(pa.float32(), 3))})
    with pytest.raises(InputError, match="3"):
        model_scorer(ITEMS, users, pa.array(["x"]), Similarity.COSINE).top_k(np.arange(1), 1, None)
