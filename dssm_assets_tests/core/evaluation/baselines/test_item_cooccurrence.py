"""Who took what, in either direction, and that neighbours come of it in memory that the number of users does not change."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from dssm_assets.core.arrays.ragged import Exclusions
from dssm_assets.core.evaluation.baselines import item_cooccurrence
from dssm_assets.core.evaluation.baselines import item_cooccurrence as taken_together
from dssm_assets.core.evaluation.baselines.item_cooccurrence import TakenTogether, best_columns, fit_neighbors, taken_by
from dssm_assets.core.retrieval.exact import top_k_scores
from dssm_assets.storage.local_files import ScratchArrays

ITEMS, EACH = 300, 10


def world(users: int, scratch: ScratchArrays) -> TakenTogether:
    """Every user took EACH distinct items."""
    rng = np.random.Generator(np.random.PCG64(7))
    items = (rng.integers(ITEMS, size=(users, 1)) + 7 * np.arange(EACH)) % ITEMS
    return TakenTogether(np.arange(users + 1) * EACH, scratch.concat([items.ravel()], np.int32), ITEMS)


def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(taken_together, "BLOCK_PAIRS", 5_000)
    monkeypatch.setattr(item_cooccurrence, "FIT_PAIRS", 5_000)


def test_the_other_direction(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = TakenTogether(np.array([0, 2, 2, 5]), np.array([3, 1, 0, 3, 1], np.int32), 5)
    for pairs in (1, 2, 100):
        monkeypatch.setattr(taken_together, "BLOCK_PAIRS", pairs)
        found = taken_by(taken, np.empty)
        assert found.starts.tolist() == [0, 1, 3, 3, 5, 5]
        assert found.users.tolist() == [2, 0, 2, 0, 2]
        assert found.together.tolist() == [3, 5, 0, 5, 0]


def test_small_blocks_in_files_find_the_same_neighbours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = ScratchArrays(tmp_path)
    taken = world(800, scratch)
    whole = fit_neighbors(taken, 20)
    small_blocks(monkeypatch)
    parts = fit_neighbors(taken, 20, scratch)
    assert (whole != parts).nnz == 0
    assert whole.nnz == parts.nnz > 0


def test_memory_does_not_follow_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_blocks(monkeypatch)
    scratch, peaks = ScratchArrays(tmp_path), []
    for users in (2_000, 16_000):
        taken = world(users, scratch)
        tracemalloc.start()
        fit_neighbors(taken, 20, scratch)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    pairs = 14_000 * EACH
    assert peaks[1] - peaks[0] < pairs  # less than a byte for each pair more, where 24 in memory and a transposition were held


def test_ties_go_to_the_lower_column_and_what_is_not_above_0_is_left_out() -> None:
    matrix = sp.csr_matrix(np.array([[0.5, 2.0, 0.5, 0.5], [0.0, -1.0, 0.0, 0.0]]))
    best = best_columns(matrix, 2)
    assert best.lengths.tolist() == [2, 0]
    assert best.columns.tolist() == [1, 0]
    assert best.values.tolist() == [2.0, 0.5]
    assert best.lists(3).tolist() == [[1, 0, -1], [-1, -1, -1]]


def test_values_that_float32_cannot_tell_apart_are_told_apart() -> None:
    above = 1.0 + 1e-12
    assert np.float32(above) == np.float32(1.0)
    matrix = sp.csr_matrix(np.array([[1.0, 1.0, above, 1.0]]))
    assert best_columns(matrix, 1).columns.tolist() == [2]
    assert best_columns(matrix, 2).columns.tolist() == [2, 0]


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_it_is_the_dense_selection(data: st.DataObject) -> None:
    rows, columns = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 12))
    k = data.draw(st.integers(1, 14))
    values = st.sampled_from([0.0, 0.0, 0.25, 0.5, 0.5 + 1e-13, 3.0])
    dense = np.array(data.draw(st.lists(st.lists(values, min_size=columns, max_size=columns), min_size=rows, max_size=rows)))
    banned = [sorted(data.draw(st.sets(st.integers(0, columns - 1)))) for _ in range(rows)]
    indptr = np.cumsum([0] + [len(row) for row in banned])
    excluded = Exclusions(indptr, np.array([item for row in banned for item in row], dtype=np.int64))
    expected, _ = top_k_scores(np.where(dense > 0, dense, -np.inf), k, excluded)
    assert best_columns(sp.csr_matrix(dense), k, excluded).lists(k).tolist() == expected.tolist()
