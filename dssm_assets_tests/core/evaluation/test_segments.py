"""Segments: names, bounds, and rates that add up."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from dssm_assets.core.errors import InputError
from dssm_assets.core.evaluation.segments import segment_labels, segment_of, segment_table
from dssm_assets.core.evaluation.truth import Population


def test_labels() -> None:
    assert segment_labels([10, 30, 100]) == ["0", "1-9", "10-29", "30-99", "100+"]
    assert segment_labels([1]) == ["0", "1+"]
    assert segment_labels([2, 3]) == ["0", "1", "2", "3+"]
    assert segment_labels([]) == ["0", "1+"]


def test_users_fall_into_the_segment_whose_range_holds_them() -> None:
    events = np.array([0, 1, 9, 10, 29, 30, 99, 100, 5000])
    expected = ["0", "1-9", "1-9", "10-29", "10-29", "30-99", "30-99", "100+", "100+"]
    assert segment_of(events, [10, 30, 100]).to_pylist() == expected


@pytest.mark.parametrize("edges", [[0], [10, 10], [30, 10]])
def test_edges_out_of_order_are_refused(edges: list[int]) -> None:
    with pytest.raises(InputError, match=r"evaluation\.segment_edges"):
        segment_labels(edges)


DETAIL = pa.table(
    {
        "segment": ["0", "10+", "10+", "10+"],
        "hits": [1, 1, 0, 3],
        "truth_count": [2, 4, 1, 3],
        "warm_hits": [0, 1, 0, 1],
        "warm_truth_count": [0, 2, 0, 2],
    }
)


def test_rates_by_segment() -> None:
    rows = segment_table(DETAIL, [10], bootstrap_samples=500, seed=1).to_pylist()
    assert [(r["segment"], r["users"], r["hits"], r["truth_count"], r["hit_rate"]) for r in rows] == [
        ("0", 1, 1, 2, 0.5),
        ("10+", 3, 4, 8, 0.5),
    ]
    assert (rows[0]["ci_low"], rows[0]["ci_high"]) == (0.5, 0.5)
    assert rows[1]["ci_low"] < 0.5 < rows[1]["ci_high"]


def test_the_warm_cut_leaves_new_users_out_and_cold_is_refused() -> None:
    (row,) = segment_table(DETAIL, [10], bootstrap_samples=100, seed=1, population=Population.WARM).to_pylist()
    assert (row["segment"], row["users"], row["hits"], row["truth_count"]) == ("10+", 2, 2, 4)
    with pytest.raises(InputError, match="all or warm"):
        segment_table(DETAIL, [10], bootstrap_samples=100, seed=1, population=Population.COLD)
    assert segment_table(DETAIL.slice(0, 0), [10], bootstrap_samples=100, seed=1).num_rows == 0
