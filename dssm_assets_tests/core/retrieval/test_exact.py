"""Exact search equals a search that a person would write, ties and exclusions included."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dssm_assets.core.config import Similarity
from dssm_assets.core.errors import InputError
from dssm_assets.core.retrieval import exact
from dssm_assets.core.retrieval.exact import top_k, top_k_scores
from dssm_assets.core.retrieval.exclusions import Exclusions

NONE = -1


def exclusions(sets: list[set[int]]) -> Exclusions:
    flat = [item for one in sets for item in sorted(one)]
    return Exclusions(np.cumsum([0] + [len(one) for one in sets]).astype(np.int64), np.array(flat, dtype=np.int64))


def slow(users: np.ndarray, items: np.ndarray, k: int, banned: list[set[int]]) -> list[list[int]]:
    """Every score by exact summation, every list by sorting tuples."""
    lists = []
    for user, without in zip(users.tolist(), banned, strict=True):
        scored = [
            (-float(np.float32(math.fsum(a * b for a, b in zip(user, item, strict=True)))), index)
            for index, item in enumerate(items.tolist())
            if index not in without
        ]
        best = [index for _, index in sorted(scored)[:k]]
        lists.append(best + [NONE] * (k - len(best)))
    return lists


@st.composite
def tied_worlds(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int, list[set[int]]]:
    """Few distinct small vectors, so that most scores tie."""
    grid = st.lists(st.integers(-2, 2), min_size=3, max_size=3).filter(any)
    users = draw(st.lists(grid, min_size=1, max_size=5))
    items = draw(st.lists(grid, min_size=1, max_size=30))
    banned = [draw(st.sets(st.integers(0, len(items) - 1), max_size=len(items))) for _ in users]
    return np.array(users, np.float32), np.array(items, np.float32), draw(st.integers(1, 12)), banned


@settings(max_examples=150, deadline=None)
@given(tied_worlds(), st.integers(1, 3))
def test_small_worlds_full_of_ties_equal_brute_force(
    world: tuple[np.ndarray, np.ndarray, int, list[set[int]]], block: int
) -> None:
    users, items, k, banned = world
    index, scores = top_k(users, items, k, similarity=Similarity.INNER_PRODUCT, excluded=exclusions(banned), block_size=block)
    assert index.dtype == np.int64 and scores.dtype == np.float32
    assert index.tolist() == slow(users, items, k, banned)
    assert (np.isneginf(scores) == (index == NONE)).all()


def few_shapes(rng: np.random.Generator, distinct: int, count: int, dim: int) -> np.ndarray:
    """Many copies of few vectors, at random places: the cut at k falls inside a tie."""
    return rng.normal(size=(distinct, dim)).astype(np.float32)[rng.integers(distinct, size=count)]


@pytest.mark.parametrize("distinct", [1, 7, 40, 3000])
@pytest.mark.parametrize("banned_size", [0, 5, 300])
def test_the_search_by_candidates_equals_brute_force(distinct: int, banned_size: int) -> None:
    rng = np.random.default_rng(distinct + banned_size)
    users, items = rng.normal(size=(12, 16)).astype(np.float32), few_shapes(rng, distinct, 900, 16)
    banned = [
        set(rng.choice(900, size=banned_size if row % 2 else banned_size // 5, replace=False).tolist()) for row in range(12)
    ]
    index, scores = top_k(users, items, 20, similarity=Similarity.INNER_PRODUCT, excluded=exclusions(banned), block_size=5)
    assert index.tolist() == slow(users, items, 20, banned)
    expected = np.take_along_axis((users.astype(float) @ items.T.astype(float)), index, axis=1)
    np.testing.assert_allclose(scores, expected, rtol=1e-5)


def test_a_user_whose_best_items_are_all_excluded_gets_the_next_best() -> None:
    rng = np.random.default_rng(21)
    users, items = rng.normal(size=(4, 16)).astype(np.float32), rng.normal(size=(2000, 16)).astype(np.float32)
    best = slow(users, items, 320, [set()] * 4)
    banned = [set(best[0][:300]), set(), set(best[2][:250]), set(best[3][:10])]
    index, _ = top_k(users, items, 20, similarity=Similarity.INNER_PRODUCT, excluded=exclusions(banned))
    assert index.tolist() == [best[0][300:320], best[1][:20], best[2][250:270], best[3][10:30]]


def test_the_candidate_path_is_taken_and_proves_most_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    users, items = rng.normal(size=(50, 16)).astype(np.float32), rng.normal(size=(2000, 16)).astype(np.float32)
    expected = slow(users, items, 10, [set()] * 50)
    brute: list[int] = []
    original = exact._brute_force
    monkeypatch.setattr(exact, "_brute_force", lambda rows, *rest: brute.append(len(rows)) or original(rows, *rest))
    index, _ = top_k(users, items, 10, similarity=Similarity.INNER_PRODUCT)
    assert index.tolist() == expected
    assert sum(brute) < 5


def test_blocks_and_copies_of_items_change_nothing() -> None:
    rng = np.random.default_rng(11)
    users, items = rng.normal(size=(300, 24)).astype(np.float32), few_shapes(rng, 500, 1500, 24)
    whole = top_k(users, items, 50, similarity=Similarity.COSINE)
    for block in (1, 7, 299):
        parts = top_k(users, items, 50, similarity=Similarity.COSINE, block_size=block)
        assert (parts[0] == whole[0]).all() and (parts[1] == whole[1]).all()
    tied = np.diff(whole[1], axis=1) == 0
    assert tied.any()
    assert (np.diff(whole[0], axis=1)[tied] > 0).all()


def test_cosine_ignores_length_and_inner_product_does_not() -> None:
    user, items = np.array([[1.0, 0.0]]), np.array([[1.0, 0.0], [3.0, 3.0], [0.5, 0.1]])
    assert top_k(user, items, 3, similarity=Similarity.COSINE)[0].tolist() == [[0, 2, 1]]
    assert top_k(user, items, 3, similarity=Similarity.INNER_PRODUCT)[0].tolist() == [[1, 0, 2]]


def test_fewer_items_than_k_end_in_minus_one_and_no_users_give_no_rows() -> None:
    items = np.array([[1.0], [2.0], [3.0]])
    index, scores = top_k(
        np.array([[1.0], [1.0]]), items, 5, similarity=Similarity.INNER_PRODUCT, excluded=exclusions([{2}, {0, 1, 2}])
    )
    assert index.tolist() == [[1, 0, -1, -1, -1], [-1, -1, -1, -1, -1]]
    assert scores.tolist() == [[2, 1, -np.inf, -np.inf, -np.inf], [-np.inf] * 5]
    assert top_k(np.zeros((0, 1)), items, 2, similarity=Similarity.COSINE)[0].shape == (0, 2)


def test_exclusions_that_do_not_fit_are_refused() -> None:
    users, items = np.ones((2, 1)), np.ones((3, 1))
    with pytest.raises(InputError, match=r"2 indices outside"):
        top_k(users, items, 1, similarity=Similarity.COSINE, excluded=exclusions([{3}, {-1}]))
    with pytest.raises(InputError, match="exclusions, users: expected 2, got 1"):
        top_k(users, items, 1, similarity=Similarity.COSINE, excluded=exclusions([{0}]))
    with pytest.raises(InputError, match="top_k, k"):
        top_k(users, items, 0, similarity=Similarity.COSINE)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_selection_from_a_block_equals_sorting_tuples(data: st.DataObject) -> None:
    num_items = data.draw(st.integers(1, 15))
    row = st.lists(st.sampled_from([-np.inf, -1.0, 0.0, 0.5, 2.0]), min_size=num_items, max_size=num_items)
    block = data.draw(st.lists(row, min_size=1, max_size=4))
    banned = [data.draw(st.sets(st.integers(0, num_items - 1))) for _ in block]
    k = data.draw(st.integers(1, 18))
    index, scores = top_k_scores(np.array(block), k, exclusions(banned))
    for given_scores, without, got, values in zip(block, banned, index.tolist(), scores.tolist(), strict=True):
        best = sorted((-s, i) for i, s in enumerate(given_scores) if i not in without and s > -np.inf)[:k]
        assert got == [i for _, i in best] + [NONE] * (k - len(best))
        assert values == [-s for s, _ in best] + [-np.inf] * (k - len(best))


def test_selection_leaves_its_input_alone_and_refuses_nan() -> None:
    scores = np.array([[1.0, 2.0]])
    top_k_scores(scores, 1, exclusions([{1}]))
    assert scores.tolist() == [[1.0, 2.0]]
    with pytest.raises(InputError, match="1 NaN"):
        top_k_scores(np.array([[np.nan, 1.0]]), 1)
