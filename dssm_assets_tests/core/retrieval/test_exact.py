"""Exact search equals a search that a person would write, ties and exclusions included."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.core.config.model import Similarity
from dssm_assets.core.retrieval import exact
from dssm_assets.core.retrieval.exact import Corpus, score_interests, search, search_interests
from dssm_assets.core.retrieval.vectors import Metric, pair_scores
from dssm_assets_tests.core.arrays.item_sets import item_sets

NONE = -1


def top_k(users: np.ndarray, items: np.ndarray, k: int, *, similarity: Metric | Similarity, **options: Any) -> exact.Lists:
    return search(Corpus(items, similarity), users, k, **options)


def slow(users: np.ndarray, items: np.ndarray, k: int, banned: list[set[int]], metric: Metric = Metric.IP) -> list[list[int]]:
    """Every score by exact summation, every list by sorting tuples."""
    lists = []
    for user, without in zip(users.tolist(), banned, strict=True):
        scored = [(-slow_score(user, item, metric), index) for index, item in enumerate(items.tolist()) if index not in without]
        best = [index for _, index in sorted(scored)[:k]]
        lists.append(best + [NONE] * (k - len(best)))
    return lists


def slow_score(user: list[float], item: list[float], metric: Metric) -> float:
    if metric is Metric.L2:
        return -float(np.float32(math.fsum((a - b) ** 2 for a, b in zip(user, item, strict=True))))
    return float(np.float32(math.fsum(a * b for a, b in zip(user, item, strict=True))))


GRID = st.lists(st.integers(-2, 2), min_size=3, max_size=3).filter(any)


@st.composite
def tied_worlds(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int, list[set[int]]]:
    """Few distinct small vectors, so that most scores tie."""
    users = draw(st.lists(GRID, min_size=1, max_size=5))
    items = draw(st.lists(GRID, min_size=1, max_size=30))
    banned = [draw(st.sets(st.integers(0, len(items) - 1), max_size=len(items))) for _ in users]
    return np.array(users, np.float32), np.array(items, np.float32), draw(st.integers(1, 12)), banned


@given(tied_worlds(), st.integers(1, 3), st.sampled_from([Metric.IP, Metric.L2]))
def test_search_with_many_ties_equals_brute_force(
    world: tuple[np.ndarray, np.ndarray, int, list[set[int]]], block: int, metric: Metric
) -> None:
    users, items, k, banned = world
    index, scores = top_k(users, items, k, similarity=metric, excluded=item_sets(banned), block_size=block)
    assert index.dtype == np.int64 and scores.dtype == np.float32
    assert index.tolist() == slow(users, items, k, banned, metric)
    assert (np.isneginf(scores) == (index == NONE)).all()


def few_shapes(rng: np.random.Generator, distinct: int, count: int, dim: int) -> np.ndarray:
    """Many copies of few vectors, at random places: the cut at k falls inside a tie."""
    return rng.normal(size=(distinct, dim)).astype(np.float32)[rng.integers(distinct, size=count)]


@pytest.fixture(params=[32, 0])
def spare(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without spare proposals no list has its proof, so that every user is searched again."""
    monkeypatch.setattr(exact, "_SPARE", request.param)


@pytest.mark.parametrize("metric", [Metric.IP, Metric.L2])
@pytest.mark.parametrize("distinct", [1, 7, 40, 3000])
@pytest.mark.parametrize("banned_size", [0, 5, 300])
def test_search_with_and_without_proof_equals_brute_force(spare: None, distinct: int, banned_size: int, metric: Metric) -> None:
    rng = np.random.default_rng(distinct + banned_size)
    users, items = rng.normal(size=(12, 16)).astype(np.float32), few_shapes(rng, distinct, 900, 16)
    banned = [
        set(rng.choice(900, size=banned_size if row % 2 else banned_size // 5, replace=False).tolist()) for row in range(12)
    ]
    index, scores = top_k(users, items, 20, similarity=metric, excluded=item_sets(banned), block_size=5, threads=2)
    assert index.tolist() == slow(users, items, 20, banned, metric)
    expected = [
        [slow_score(user, items[one].tolist(), metric) for one in row]
        for user, row in zip(users.tolist(), index.tolist(), strict=True)
    ]
    np.testing.assert_allclose(scores, expected, rtol=1e-6)


@pytest.mark.parametrize("exponent", [-6, 0, 6])
def test_search_is_exact_for_short_and_long_vectors(spare: None, exponent: int) -> None:
    rng = np.random.default_rng(4)
    users = (rng.normal(size=(4, 8)) * 10.0**exponent).astype(np.float32)
    items = (rng.normal(size=(700, 8)) * 10.0**exponent * rng.choice([1e-3, 1, 1e3], size=(700, 1))).astype(np.float32)
    for metric in (Metric.IP, Metric.L2):
        index, _ = top_k(users, items, 9, similarity=metric)
        assert index.tolist() == slow(users, items, 9, [set()] * 4, metric)


def test_users_with_few_and_many_exclusions_equal_brute_force(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(13)
    users, items = rng.normal(size=(9, 8)).astype(np.float32), rng.normal(size=(400, 8)).astype(np.float32)
    banned = [set(rng.choice(400, size=size, replace=False).tolist()) for size in (300, 0, 7, 399, 1, 400, 50, 0, 120)]
    expected = slow(users, items, 15, banned)
    for cells in (1, 500, 10**6):
        monkeypatch.setattr(exact, "_BLOCK_CELLS", cells)
        assert top_k(users, items, 15, similarity=Metric.IP, excluded=item_sets(banned))[0].tolist() == expected


def clusters(rng: np.random.Generator, count: int, dim: int, spread: float) -> np.ndarray:
    centre = rng.normal(size=(1, dim)) * 3
    return (centre + rng.normal(size=(count, dim)) * spread * rng.lognormal(0, 1, size=(count, 1))).astype(np.float32)


@pytest.mark.parametrize("metric", [Metric.IP, Metric.L2])
@pytest.mark.parametrize("dim", [1, 3, 64, 300])
@pytest.mark.parametrize("spread", [1e-4, 1.0])
@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_no_other_item_exceeds_the_bound_of_proposals(metric: Metric, dim: int, spread: float, size: float) -> None:
    rng = np.random.default_rng(dim)
    users, items = (clusters(rng, count, dim, spread) * np.float32(size) for count in (20, 200))
    proposed, bound = Corpus(items, metric).propose_items(users, 40)
    scores = pair_scores(users, items, np.repeat(np.arange(20), 200), np.tile(np.arange(200), 20), metric).reshape(20, 200)
    np.put_along_axis(scores, proposed, -np.inf, axis=1)
    assert (scores.max(axis=1) <= bound).all()


def test_block_size_and_threads_do_not_change_lists() -> None:
    rng = np.random.default_rng(11)
    users, items = rng.normal(size=(300, 24)).astype(np.float32), few_shapes(rng, 500, 1500, 24)
    whole = top_k(users, items, 50, similarity=Similarity.COSINE)
    for block, threads in ((1, 1), (7, 1), (7, 3), (299, 2)):
        parts = top_k(users, items, 50, similarity=Similarity.COSINE, block_size=block, threads=threads)
        assert (parts[0] == whole[0]).all() and (parts[1] == whole[1]).all()
    tied = np.diff(whole[1], axis=1) == 0
    assert tied.any()
    assert (np.diff(whole[0], axis=1)[tied] > 0).all()


def test_cosine_ignores_length_and_inner_product_does_not() -> None:
    user, items = np.array([[1.0, 0.0]]), np.array([[1.0, 0.0], [3.0, 3.0], [0.5, 0.1]])
    assert top_k(user, items, 3, similarity=Similarity.COSINE)[0].tolist() == [[0, 2, 1]]
    assert top_k(user, items, 3, similarity=Similarity.INNER_PRODUCT)[0].tolist() == [[1, 0, 2]]


def test_short_lists_are_padded_and_no_users_give_no_rows() -> None:
    items = np.array([[1.0], [2.0], [3.0]])
    index, scores = top_k(
        np.array([[1.0], [1.0]]), items, 5, similarity=Similarity.INNER_PRODUCT, excluded=item_sets([{2}, {0, 1, 2}])
    )
    assert index.tolist() == [[1, 0, -1, -1, -1], [-1, -1, -1, -1, -1]]
    assert scores.tolist() == [[2, 1, -np.inf, -np.inf, -np.inf], [-np.inf] * 5]
    assert top_k(np.zeros((0, 1)), items, 2, similarity=Similarity.COSINE)[0].shape == (0, 2)


@given(
    st.lists(st.lists(GRID, max_size=4), min_size=1, max_size=5).filter(any),
    st.lists(GRID, min_size=1, max_size=12),
    st.integers(1, 15),
    st.sampled_from([Metric.IP, Metric.L2]),
    st.integers(1, 4),
    st.data(),
)
def test_users_of_many_vectors_equal_the_maximum_over_them(
    users: list[list[list[int]]], items: list[list[int]], k: int, metric: Metric, block: int, data: st.DataObject
) -> None:
    banned = [data.draw(st.sets(st.integers(0, len(items) - 1))) for _ in users]
    bounds = np.cumsum([0] + [len(each) for each in users])
    vectors = np.array([vector for each in users for vector in each], np.float32).reshape(-1, 3)
    index, scores = search_interests(
        Corpus(np.array(items), metric), vectors, bounds, k, excluded=item_sets(banned), block_size=block
    )
    for user, without, got, values in zip(users, banned, index.tolist(), scores.tolist(), strict=True):
        best = sorted(
            (-max(slow_score(v, item, metric) for v in user), i) for i, item in enumerate(items) if user and i not in without
        )
        best = best[:k]
        assert got == [i for _, i in best] + [-1] * (k - len(best))
        assert values == [-s for s, _ in best] + [-np.inf] * (k - len(best))


def test_score_of_an_item_is_that_of_the_best_interest() -> None:
    items = np.array([[1, 0], [0, 1], [0.6, 0.8]], np.float32)
    users = np.array([[[1, 0], [0, 1]], [[2, 0], [-1, 0]]], np.float32)
    columns = np.array([[0, 2, 1], [2, 1, 0]])
    found = score_interests(users, items, columns, Metric.IP)
    assert found == pytest.approx(np.array([[1, 0.8, 1], [1.2, 0, 2]]))
    assert score_interests(users, items, columns, Metric.COSINE)[1] == pytest.approx([0.6, 0, 1])
