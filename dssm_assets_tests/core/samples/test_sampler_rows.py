"""The rows of the samplers' text tables by hand."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pytest

from dssm_assets.core.samples.sampler_rows import EDGE, counted, exposures, item_rows, not_taken


def test_features_become_text_in_their_order() -> None:
    negatives = pa.table(
        {
            "item_id": [7, 8],
            "weight": [2.0, 1.0],
            "count": [3, 0],
            "brand": pa.array([5, None], pa.int32()),
            "tags": pa.array([[1, 2], None], pa.list_(pa.int64())),
            "tags__weights": pa.array([[0.5, 1.0], None], pa.list_(pa.float32())),
            "colour": pa.array(["red", None]).dictionary_encode(),
        }
    )
    table, fields = item_rows(negatives)
    assert fields == ["brand", "tags", "tags__weights", "colour"]
    assert table.to_pylist() == [
        {"item_id": 7, "weight": 2.0, "brand": "5", "tags": "1\x1d2", "tags__weights": "0.5\x1d1", "colour": "red"},
        {"item_id": 8, "weight": 1.0, "brand": "", "tags": "", "tags__weights": "", "colour": ""},
    ]


@pytest.mark.parametrize("kind", [pa.list_, pa.large_list])
def test_a_missing_value_among_several_is_an_empty_text_and_loses_no_other(kind: Callable[[pa.DataType], pa.DataType]) -> None:
    tags = pa.array([["a", None, "c"], None, [], [None]], kind(pa.string()))
    rows, _ = item_rows(pa.table({"item_id": [1, 2, 3, 4], "weight": [1.0] * 4, "count": [1] * 4, "tags": tags}))
    assert rows.column("tags").to_pylist() == ["a\x1d\x1dc", "", "", ""]


def test_keys_are_counted_over_days() -> None:
    days = [
        pa.table({"user_id": ["b", "a"], "item_id": [1, 2]}),
        pa.table({"user_id": pa.array([], pa.string()), "item_id": pa.array([], pa.int64())}),
        pa.table({"user_id": ["b", "b"], "item_id": [1, 2]}),
    ]
    users = counted((day.select(["user_id"]) for day in days), ["user_id"])
    assert users.to_pylist() == [{"user_id": "a", "weight": 1.0}, {"user_id": "b", "weight": 3.0}]
    edges = counted(iter(days), EDGE)
    assert [tuple(row.values()) for row in edges.to_pylist()] == [("a", 2, 1.0), ("b", 1, 2.0), ("b", 2, 1.0)]


def test_a_hard_edge_was_shown_and_not_taken() -> None:
    day = pa.table(
        {
            "user_id": [1, 1, 1, 2, 2],
            "item_id": [5, 6, 6, 5, 6],
            "event": ["expr", "expr", "buy", "click", "expr"],
            "label": [0, 0, 1, 0, 0],
        }
    )
    shown = counted([exposures(day, ["expr"])], EDGE)
    taken = counted([day.slice(2, 1)], EDGE)
    # User 1 was shown 5 and 6 and bought 6, user 2 was shown 6 and clicked on 5.
    assert [tuple(row.values()) for row in not_taken(shown, taken).to_pylist()] == [(1, 5, 1.0), (2, 6, 1.0)]
