"""Popular items of a bundle: order and members."""

from __future__ import annotations

import pyarrow as pa

from dssm_assets.core.arrays.ids import IdIndex
from dssm_assets.core.serving.popular_items import rank_popular_items


def test_popular_items_are_sorted_by_count_then_id() -> None:
    counts = pa.table({"item_id": ["d", "a", "x", "b", "c"], "count": pa.array([2, 5, 9, 2, 0], pa.int64())})
    found = rank_popular_items(counts, IdIndex(pa.array(["b", "c", "d", "a"])))
    # x is not in the corpus and c has no positive event.
    assert found.to_pylist() == [{"item_id": "a", "count": 5}, {"item_id": "b", "count": 2}, {"item_id": "d", "count": 2}]


def test_popular_items_without_positives_are_empty() -> None:
    counts = pa.table({"item_id": pa.array([], pa.int64()), "count": pa.array([], pa.int64())})
    assert rank_popular_items(counts, IdIndex(pa.array([1, 2]))).num_rows == 0
