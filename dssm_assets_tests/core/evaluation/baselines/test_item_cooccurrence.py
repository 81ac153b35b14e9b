"""Item co-occurrence by hand, and that neighbours are found in memory that does not grow with the number of users."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.core.evaluation.baselines import item_cooccurrence
from dssm_assets.core.evaluation.baselines.fit_data import UserItems
from dssm_assets.core.evaluation.baselines.item_cooccurrence import best_columns, fit_all_neighbors, fit_neighbors, transpose
from dssm_assets.core.evaluation.scopes import Scope
from dssm_assets.core.retrieval.exact import top_k_scores
from dssm_assets.storage.local_files import ScratchArrays
from dssm_assets_tests.core.evaluation.baselines.small_world import ITEMS, USERS, WINDOW, lists
from dssm_assets_tests.core.evaluation.worlds import interactions, user_items

NUM_ITEMS, EACH = 300, 10


def test_item_cooccurrence_by_hand() -> None:
    # Similarities: a-b 1/sqrt(3) = .577, a-c 2/sqrt(6) = .816, a-d 1/sqrt(3) = .577, c-d 1/sqrt(2) = .707.
    # u has {a, b}: c .816, then a, b, d .577 each by index. v has {a, c}: d 1.285, a .816, c .816, b .577.
    assert lists("item_cooccurrence", 6) == {"n": "abcdef", "u": "cabdef", "v": "dacbef"}
    assert lists("item_cooccurrence", 3, Scope.DISCOVERY) == {"n": "abc", "u": "cde", "v": "dbe"}


@pytest.mark.parametrize("again", [[0, 1, 2], [1], [0, 2], [], [2, 3]])
def test_users_who_are_asked_for_again_have_the_same_lists(again: list[int]) -> None:
    window = interactions(WINDOW, [*USERS, "x"], ITEMS)
    neighbors, order = fit_neighbors(user_items(window), 5), np.arange(len(ITEMS))
    asked, fresh = (item_cooccurrence.item_cooccurrence_scorer(window, neighbors, order) for _ in range(2))
    asked.top_items(np.arange(3), 2)
    assert asked.top_items(np.array(again, np.int64), 5).tolist() == fresh.top_items(np.array(again, np.int64), 5).tolist()


def test_only_the_nearest_neighbours_are_kept() -> None:
    neighbors = fit_neighbors(user_items(interactions(WINDOW, USERS, ITEMS)), 1)
    nearest = {ITEMS[row]: ITEMS[column] for row, column in zip(*neighbors.nonzero(), strict=True)}
    assert nearest == {"a": "c", "b": "a", "c": "a", "d": "c"}
    assert neighbors[0, 2] == pytest.approx(2 / np.sqrt(6))


def test_only_the_most_recent_items_of_a_user_co_occur() -> None:
    # u had a, b, c at times 1, 2, 3; v had a and b.
    rows = [("u", "a", 1, 1), ("u", "b", 1, 2), ("u", "c", 1, 3), ("v", "a", 1, 1), ("v", "b", 1, 2)]
    window = interactions(rows, ["u", "v"], ["a", "b", "c"])
    # Of the last two of each: u has {b, c}, v has {a, b}; b has two users, a and c one.
    whole, cut = (fit_neighbors(user_items(window, most), 5).toarray() for most in (1000, 2))
    assert whole[0, 1] == pytest.approx(1.0)
    assert cut == pytest.approx(np.array([[0, 2**-0.5, 0], [2**-0.5, 0, 2**-0.5], [0, 2**-0.5, 0]]))


def test_neighbours_do_not_depend_on_the_ranges_of_items(monkeypatch: pytest.MonkeyPatch) -> None:
    items = user_items(interactions(WINDOW, USERS, ITEMS))
    whole = fit_neighbors(items, 2).toarray()
    monkeypatch.setattr(item_cooccurrence, "FIT_PAIRS", 1)
    assert fit_neighbors(items, 2).toarray().tolist() == whole.tolist()


@pytest.mark.parametrize("key_bits", [63, 0])
def test_neighbours_equal_a_dense_computation(key_bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_cooccurrence, "_KEY_BITS", key_bits)
    monkeypatch.setattr(item_cooccurrence, "FIT_PAIRS", 400)
    rng = np.random.Generator(np.random.PCG64(11))
    for _ in range(20):
        has = rng.random((40, 30)) < rng.uniform(0.02, 0.5, 30)
        items = UserItems(np.append(0, np.cumsum(has.sum(axis=1))), np.nonzero(has)[1].astype(np.int32), 30)
        common = has.T.astype(np.float64) @ has
        users = np.maximum(has.sum(axis=0), 1).astype(np.float64)
        similarity = common / np.sqrt(users[:, None] * users)
        np.fill_diagonal(similarity, 0.0)
        for least, found in zip((1, 2), fit_all_neighbors(items, 5, np.empty, (1, 2)), strict=True):
            kept = np.where(common >= least, similarity, 0.0)
            for row, of_item in enumerate(kept):
                best = sorted(np.flatnonzero(of_item), key=lambda column, of_item=of_item: (-of_item[column], column))[:5]
                stored = slice(found.indptr[row], found.indptr[row + 1])
                assert found.indices[stored].tolist() == best
                assert found.data[stored].tolist() == of_item[best].tolist()


@pytest.mark.parametrize("pairs", [1, 50, 10**6])
def test_neighbors_of_some_items_are_their_rows_alone(pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_cooccurrence, "FIT_PAIRS", pairs)
    monkeypatch.setattr(item_cooccurrence, "BLOCK_PAIRS", pairs)
    has = np.random.Generator(np.random.PCG64(5)).random((40, 30)) < 0.2
    items = UserItems(np.append(0, np.cumsum(has.sum(axis=1))), np.nonzero(has)[1].astype(np.int32), 30)
    wanted = np.arange(30) % 3 == 0
    (whole,), (some,) = (fit_all_neighbors(items, 5, np.empty, (1,), of_items) for of_items in (None, wanted))
    assert some.toarray().tolist() == (whole.toarray() * wanted[:, None]).tolist()


def world(users: int, scratch: ScratchArrays) -> UserItems:
    """Every user has EACH distinct items."""
    rng = np.random.Generator(np.random.PCG64(7))
    items = (rng.integers(NUM_ITEMS, size=(users, 1)) + 7 * np.arange(EACH)) % NUM_ITEMS
    return UserItems(np.arange(users + 1) * EACH, scratch.concat([items.ravel()], np.int32), NUM_ITEMS)


def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_cooccurrence, "BLOCK_PAIRS", 5_000)
    monkeypatch.setattr(item_cooccurrence, "FIT_PAIRS", 5_000)


def test_transpose_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    items = UserItems(np.array([0, 2, 2, 5]), np.array([3, 1, 0, 3, 1], np.int32), 5)
    for pairs in (1, 2, 100):
        monkeypatch.setattr(item_cooccurrence, "BLOCK_PAIRS", pairs)
        found = transpose(items, np.empty)
        assert found.starts.tolist() == [0, 1, 3, 3, 5, 5]
        assert found.users.tolist() == [2, 0, 2, 0, 2]
        assert found.item_pairs.tolist() == [3, 5, 0, 5, 0]


def test_small_blocks_in_files_find_the_same_neighbours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = ScratchArrays(tmp_path)
    items = world(800, scratch)
    whole = fit_neighbors(items, 20)
    small_blocks(monkeypatch)
    parts = fit_neighbors(items, 20, scratch)
    assert (whole != parts).nnz == 0
    assert whole.nnz == parts.nnz > 0


def test_memory_does_not_grow_with_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_blocks(monkeypatch)
    scratch, peaks = ScratchArrays(tmp_path), []
    for users in (2_000, 16_000):
        items = world(users, scratch)
        tracemalloc.start()
        fit_neighbors(items, 20, scratch)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    pairs = 14_000 * EACH
    assert peaks[1] - peaks[0] < pairs  # less than a byte per pair; in memory it would be 24


def test_best_columns_are_positive_and_ties_go_to_the_lower_column() -> None:
    matrix = sp.csr_matrix(np.array([[0.5, 2.0, 0.5, 0.5], [0.0, -1.0, 0.0, 0.0]]))
    best = best_columns(matrix, 2)
    assert best.lengths.tolist() == [2, 0]
    assert best.columns.tolist() == [1, 0]
    assert best.values.tolist() == [2.0, 0.5]
    assert best.lists(3).tolist() == [[1, 0, -1], [-1, -1, -1]]


def test_best_columns_compare_in_float64() -> None:
    above = 1.0 + 1e-12
    assert np.float32(above) == np.float32(1.0)
    matrix = sp.csr_matrix(np.array([[1.0, 1.0, above, 1.0]]))
    assert best_columns(matrix, 1).columns.tolist() == [2]
    assert best_columns(matrix, 2).columns.tolist() == [2, 0]


@given(st.data())
def test_best_columns_equal_a_dense_selection(data: st.DataObject) -> None:
    rows, columns = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 12))
    k = data.draw(st.integers(1, 14))
    values = st.sampled_from([0.0, 0.0, 0.25, 0.5, 0.5 + 1e-13, 3.0])
    dense = np.array(data.draw(st.lists(st.lists(values, min_size=columns, max_size=columns), min_size=rows, max_size=rows)))
    expected, _ = top_k_scores(np.where(dense > 0, dense, -np.inf), k)
    assert best_columns(sp.csr_matrix(dense), k).lists(k).tolist() == expected.tolist()
