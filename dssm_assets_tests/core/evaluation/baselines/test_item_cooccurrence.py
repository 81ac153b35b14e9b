"""Item co-occurrence by hand, alone and times recent popularity, and that neighbours equal a dense computation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from dssm_assets.core.arrays.ragged import ItemSets
from dssm_assets.core.evaluation import item_neighbors
from dssm_assets.core.evaluation.baselines.fit_data import order_by_events
from dssm_assets.core.evaluation.baselines.neighbors_recent import NeighborsRecentScorer, score_neighbors
from dssm_assets.core.evaluation.item_neighbors import LAST_ITEMS, NeighborLists, fit_neighbors, last_item_weights
from dssm_assets.core.names import Scope
from dssm_assets.storage.local_files import ScratchArrays
from dssm_assets.testing import user_items
from dssm_assets_tests.core.evaluation.baselines.small_world import lists
from dssm_assets_tests.core.evaluation.worlds import interactions


def test_item_cooccurrence_by_hand() -> None:
    # Similarities: a-b 1/sqrt(8 * 6) = .144, a-c 2/sqrt(8 * 7) = .267, a-d .144, c-d 1/sqrt(7 * 6) = .154.
    # u has {a, b}: c .267, then a, b, d .144 each by index. v has {a, c}: d .299, a .267, c .267, b .144.
    assert lists("item_cooccurrence", 6) == {"n": "abcdef", "u": "cabdef", "v": "dacbef"}
    assert lists("item_cooccurrence", 3, Scope.DISCOVERY) == {"n": "abc", "u": "cde", "v": "dbe"}


def test_only_the_most_recent_items_of_a_user_co_occur() -> None:
    # u had a, b, c at times 1, 2, 3; v had a and b.
    rows = [("u", "a", 1, 1), ("u", "b", 1, 2), ("u", "c", 1, 3), ("v", "a", 1, 1), ("v", "b", 1, 2)]
    window = interactions(rows, ["u", "v"], ["a", "b", "c"])
    # Of the last two of each: u has {b, c}, v has {a, b}; b has two users, a and c one.
    whole, cut = (fit_neighbors(user_items(window, most), 3).toarray() for most in (1000, 2))
    assert whole[0, 1] == pytest.approx(2 / 7)
    assert cut == pytest.approx(42**-0.5 * np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]]))


def test_a_pair_of_one_user_is_less_similar_than_one_of_four() -> None:
    # Items 0 and 1 have the same four users, 2 and 3 the same one: plain cosine is 1 for both pairs.
    whole = fit_neighbors(ItemSets(np.arange(0, 11, 2), np.array([0, 1] * 4 + [2, 3])), 4).toarray()
    assert (whole[0, 1], whole[2, 3]) == (4 / 9, 1 / 6)


def random_items(seed: int, frequency: np.ndarray) -> tuple[np.ndarray, ItemSets]:
    """Returns which of 40 users have which of 30 items, in both forms."""
    has = np.random.default_rng(seed).random((40, 30)) < frequency
    return has, ItemSets(np.append(0, np.cumsum(has.sum(axis=1))), np.nonzero(has)[1].astype(np.int32))


@pytest.mark.parametrize("pairs", [1, 400, 10**6])
def test_neighbours_equal_a_dense_computation(pairs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_neighbors, "FIT_PAIRS", pairs)
    for seed in range(20):
        has, items = random_items(seed, np.random.default_rng(seed).uniform(0.02, 0.5, 30))
        common = has.T.astype(np.float64) @ has
        users = has.sum(axis=0)
        similarity = common / np.sqrt((users[:, None] + 5) * (users + 5))
        np.fill_diagonal(similarity, 0.0)
        found = fit_neighbors(items, 30, ScratchArrays(tmp_path), num_neighbors=5)
        for row, of_item in enumerate(similarity):
            best = sorted(np.flatnonzero(of_item), key=lambda column, of_item=of_item: (-of_item[column], column))[:5]
            stored = slice(found.indptr[row], found.indptr[row + 1])
            assert dict(zip(found.indices[stored], found.data[stored], strict=True)) == dict(
                zip(best, of_item[best], strict=True)
            )


def test_neighbors_of_some_items_are_their_rows_alone() -> None:
    _, items = random_items(5, np.full(30, 0.2))
    wanted = np.arange(30) % 3 == 0
    whole, some = (fit_neighbors(items, 30, of_items=of_items, num_neighbors=5) for of_items in (None, wanted))
    assert some.toarray().tolist() == (whole.toarray() * wanted[:, None]).tolist()


def test_neighbors_times_recent_popularity_by_hand() -> None:
    # Recent events: c 1, d 2, so that c scores 3 ln 2 / ln 3 = 1.893 and d 3 without neighbors.
    # v had c last, before that a and f at one time, which weigh .8: a .267, b .115, c .214, d .154 + .115 = .270, the largest.
    # ln(1 + 20 / .270 of these): a 3.04, b 2.26, c 2.82, d 3.04; with the values d 6.04, c 4.72, a 3.04, b 2.26.
    # u had b last, before that a and e: a .144, b .115, c .214, d .115, so a 2.67, b 2.47, c 3.04 + 1.89, d 2.47 + 3.
    assert lists("neighbors_recent", 6) == {"n": "dcabef", "u": "dcabef", "v": "dcabef"}
    assert lists("neighbors_recent", 2) == {"n": "dc", "u": "dc", "v": "dc"}


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("has_own_items", [True, False])
def test_neighbors_times_recent_popularity_equal_a_sort_of_all_items(seed: int, has_own_items: bool) -> None:
    """Few distinct values, so that many items tie; some users have no item, some nearly all."""
    rng = np.random.default_rng(seed)
    _, own = random_items(seed, rng.uniform(0.0, 0.6, 30))
    similar = np.round(rng.random((30, 30)), 1) * (rng.random((30, 30)) < 0.3)
    values = rng.integers(0, 3, 30) / 2
    lists = NeighborLists(own.offsets, own.items, sp.csr_matrix(similar), has_own_items=has_own_items)
    scorer = NeighborsRecentScorer(lists, values, order_by_events(values))
    users = rng.permutation(40)[:9]
    for k in (1, 7, 40):
        for user, found in zip(users.tolist(), scorer.top_items(users, k).tolist(), strict=True):
            mine = own.items[own.offsets[user] : own.offsets[user + 1]]
            summed = (np.bincount(mine, minlength=30).astype(np.float32) @ sp.csr_matrix(similar)).astype(float)
            totals = 1.0 + values + score_neighbors(summed, summed.max())
            offered = [item for item in range(30) if has_own_items or item not in mine]
            best = sorted(offered, key=lambda item, totals=totals: (-totals[item], item))[:k]
            assert found == best + [-1] * (k - len(best))


def test_the_last_items_of_a_user_weigh_less_by_place() -> None:
    indptr, times = np.array([0, 4, 4, 5]), np.array([5, 9, 9, 7, 2])
    assert last_item_weights(indptr, times) == pytest.approx([0.8**3, 1, 1, 0.8**2, 1])
    many = last_item_weights(np.array([0, 30]), np.arange(30))
    assert np.flatnonzero(many).tolist() == list(range(30 - LAST_ITEMS, 30))
    assert many[-3] == pytest.approx(0.64)
