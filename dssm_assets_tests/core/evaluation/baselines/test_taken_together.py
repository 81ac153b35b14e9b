"""Who took what, in either direction, and that neighbours come of it in memory that the number of users does not change."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from dssm_assets.core.evaluation.baselines import item_cooccurrence, taken_together
from dssm_assets.core.evaluation.baselines.item_cooccurrence import fit_neighbors
from dssm_assets.core.evaluation.baselines.taken_together import TakenTogether, taken_by
from dssm_assets.storage.scratch_arrays import ScratchArrays

ITEMS, EACH = 300, 10


def world(users: int, scratch: ScratchArrays) -> TakenTogether:
    """Every user took EACH distinct items."""
    rng = np.random.Generator(np.random.PCG64(7))
    items = (rng.integers(ITEMS, size=(users, 1)) + 7 * np.arange(EACH)) % ITEMS
    return TakenTogether(np.arange(users + 1) * EACH, scratch.joined([items.ravel()], np.int32), ITEMS)


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
