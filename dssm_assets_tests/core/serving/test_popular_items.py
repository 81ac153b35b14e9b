"""The most taken items first, equals by id, nothing that cannot be recalled."""

from __future__ import annotations

import pyarrow as pa

from dssm_assets.core.samples.id_index import IdIndex
from dssm_assets.core.serving.popular_items import popular_items


def test_order_and_members() -> None:
    counts = pa.table({"item_id": ["d", "a", "x", "b", "c"], "count": pa.array([2, 5, 9, 2, 0], pa.int64())})
    found = popular_items(counts, IdIndex(pa.array(["b", "c", "d", "a"])))
    # x is not in the corpus and c was never taken.
    assert found.to_pylist() == [{"item_id": "a", "count": 5}, {"item_id": "b", "count": 2}, {"item_id": "d", "count": 2}]


def test_no_positive_at_all() -> None:
    counts = pa.table({"item_id": pa.array([], pa.int64()), "count": pa.array([], pa.int64())})
    assert popular_items(counts, IdIndex(pa.array([1, 2]))).num_rows == 0
