"""Interactions are sums over all rows of a pair, in one table or several."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from dssm_assets.core.arrays.ids import IdIndex
from dssm_assets.core.evaluation.interactions import interactions_of_events, sum_interactions
from dssm_assets.testing import item_events
from dssm_assets_tests.core.evaluation.worlds import events_table, interactions


def test_rows_of_a_pair_are_added_and_unknown_items_are_dropped() -> None:
    got = interactions(
        [("u", "a", 2, 10), ("x", "b", 1, 5), ("u", "a", 3, 7), ("u", "gone", 4, 99), ("u", "b", 1, 8)],
        users=["u", "v"],
        items=["b", "a"],
    )
    assert got.indptr.tolist() == [0, 2, 2, 3]  # u, v (nothing), then x, who is not evaluated
    assert got.item_index.tolist() == [0, 1, 0]
    assert got.count.tolist() == [1, 5, 1]
    assert got.last_time_ms.tolist() == [8, 10, 5]
    assert got.user_index.tolist() == [0, 0, 2]
    assert item_events(got).tolist() == [2, 5]


def test_several_tables_sum_to_one_table(monkeypatch: pytest.MonkeyPatch) -> None:
    days = [
        [("u", "a", 2, 10), ("x", "b", 1, 5)],
        [],
        [("u", "a", 3, 7), ("u", "gone", 4, 99), ("w", "a", 1, 6)],
        [("u", "b", 1, 8), ("x", "b", 1, 3), ("v", "a", 1, 1)],
    ]
    users, items = pa.array(["u", "v"]), pa.array(["b", "a"])
    whole = interactions([row for day in days for row in day], users.to_pylist(), items.to_pylist())
    all_users = pa.array(["u", "v", "w", "x"])
    for pairs in (0, 1, 1000):  # merged after every day, now and then, at the end
        monkeypatch.setattr("dssm_assets.core.evaluation.interactions.MERGE_PAIRS", pairs)
        got = sum_interactions((events_table(day, pa.string()) for day in days), all_users, IdIndex(items))
        for name in ("indptr", "item_index", "count", "last_time_ms"):
            assert getattr(got, name).tolist() == getattr(whole, name).tolist(), name
        assert got.num_items == whole.num_items


def test_single_events_are_summed_per_pair() -> None:
    owner, item, time = np.array([0, 0, 0, 0, 2]), np.array([1, 0, 1, -1, 0], np.int32), np.array([10, 8, 7, 99, 5])
    got = interactions_of_events(owner, item, time, num_users=3, num_items=2)
    assert got.indptr.tolist() == [0, 2, 2, 3]
    assert (got.item_index.tolist(), got.count.tolist(), got.last_time_ms.tolist()) == ([0, 1, 0], [1, 2, 1], [8, 10, 5])
    assert got.num_items == 2
