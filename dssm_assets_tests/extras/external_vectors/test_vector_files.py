"""The reference's layout by hand."""

from __future__ import annotations

import pyarrow as pa
import pytest

from dssm_assets.core.errors import InputError
from dssm_assets.core.retrieval.vectors import Metric
from dssm_assets.extras.external_vectors.external_evaluation import reference_detail

ID_LISTS = pa.list_(pa.int64())
DETAIL = pa.table(
    {
        "user_id": pa.array([5, 6, 7]),
        "topk_ids": pa.array([[30, 10, 20], [], [10, 30]], ID_LISTS),
        "topk_scores": pa.array([[-0.0, -0.25, -4.0], [], [-1e-7, -2.0]], pa.list_(pa.float32())),
        "hit_ids": pa.array([[10], [], [10, 30]], ID_LISTS),
        "hits": pa.array([1, 0, 2]),
        "truth_count": pa.array([2, 1, 2]),
        "hit_rate": pa.array([0.5, 0.0, 1.0]),
    }
)


def test_l2_scores_become_squared_distances() -> None:
    assert reference_detail(DETAIL, Metric.L2).to_pydict() == {
        "id": ["5", "6", "7"],
        "topk_ids": ["30,10,20", "", "10,30"],
        "topk_dists": ["0,0.25,4", "", "1e-7,2"],
        "hitrate": [0.5, 0.0, 1.0],
        "bad_ids": ["30,20", "", ""],
        "bad_dists": ["0,4", "", ""],
    }


def test_inner_products_stay_similarities_and_slices_are_read() -> None:
    text = DETAIL.set_column(1, "topk_ids", pa.array([["c", "a", "b"], [], ["a", "c"]]))
    text = text.set_column(3, "hit_ids", pa.array([["a"], [], ["a", "c"]]))
    assert reference_detail(text.slice(0, 1), Metric.IP).to_pylist() == [
        {"id": "5", "topk_ids": "c,a,b", "topk_dists": "0,-0.25,-4", "hitrate": 0.5, "bad_ids": "c,b", "bad_dists": "0,-4"}
    ]
    # One user's hit is not another's.
    assert reference_detail(text.slice(2, 1), Metric.IP).column("bad_ids").to_pylist() == [""]


def test_an_id_with_a_comma_is_refused() -> None:
    text = DETAIL.set_column(1, "topk_ids", pa.array([["a,b"], [], []]))
    with pytest.raises(InputError, match="1 with commas, first a,b"):
        reference_detail(text, Metric.IP)
