"""Which events become rows, with which label and in which order."""

from __future__ import annotations

import ibis
import pyarrow as pa
import pytest

from dssm_assets.core.errors import SchemaError
from dssm_assets.core.samples.sample import sample
from dssm_assets.core.samples.specs import SAMPLE
from dssm_assets.core.schema import check_schema

EVENTS = ["buy", "expr", "cart", "expr"]


def behavior(order: list[int]) -> pa.Table:
    table = pa.table(
        {
            "request_id": pa.array(["r2", "r1", None, "r1"], pa.string()),
            "user_id": [2, 1, 1, 1],
            "item_id": [7, 7, 8, 7],
            "event": EVENTS,
            "event_time_ms": [20, 10, 10, 10],
            "amount": [1.0, 0.0, 0.0, 0.0],
            "hour": pa.array([3, 3, 3, 3], pa.int32()),
            "weekday": pa.array([0, 0, 0, 0], pa.int32()),
            "page": ["home", "z", "home", "a"],
        }
    )
    return table.take(order)


def run(table: pa.Table, exposure: list[str], context: list[str]) -> pa.Table:
    built = sample(ibis.memtable(table), positive_events=["buy"], exposure_events=exposure, context_columns=context)
    return ibis.duckdb.connect().to_pyarrow(built)


def test_without_exposures_every_event_is_a_row_and_only_positives_are_labelled() -> None:
    rows = run(behavior([0, 1, 2, 3]), [], ["page"])
    assert rows.select(["event_time_ms", "user_id", "item_id", "event", "label", "page"]).to_pylist() == [
        {"event_time_ms": 10, "user_id": 1, "item_id": 7, "event": "expr", "label": 0, "page": "a"},
        {"event_time_ms": 10, "user_id": 1, "item_id": 7, "event": "expr", "label": 0, "page": "z"},
        {"event_time_ms": 10, "user_id": 1, "item_id": 8, "event": "cart", "label": 0, "page": "home"},
        {"event_time_ms": 20, "user_id": 2, "item_id": 7, "event": "buy", "label": 1, "page": "home"},
    ]
    check_schema(SAMPLE, rows.schema)
    assert "amount" not in rows.column_names


def test_with_exposures_an_event_that_is_neither_is_no_row() -> None:
    assert run(behavior([0, 1, 2, 3]), ["expr"], [])["event"].to_pylist() == ["expr", "expr", "buy"]


def test_order_of_the_log_does_not_change_the_table() -> None:
    assert run(behavior([3, 2, 1, 0]), [], ["page"]).equals(run(behavior([0, 1, 2, 3]), [], ["page"]))


def test_a_context_column_that_every_sample_has_comes_once() -> None:
    assert run(behavior([0]), [], ["hour", "page"]).column_names == [
        *("request_id", "user_id", "item_id", "event", "event_time_ms", "label", "hour", "weekday", "page")
    ]


def test_an_event_without_a_name_is_not_positive() -> None:
    table = behavior([0]).set_column(3, "event", pa.array([None], pa.string()))
    assert run(table, [], [])["label"].to_pylist() == [0]


def test_an_empty_day_is_an_empty_table() -> None:
    rows = run(behavior([0]).slice(0, 0), [], ["page"])
    assert rows.num_rows == 0
    check_schema(SAMPLE, rows.schema)


def test_all_missing_columns_are_named_at_once() -> None:
    with pytest.raises(SchemaError, match=r"(?s)2 faults.*column net.*column weekday"):
        run(behavior([0]).drop_columns(["weekday"]), [], ["net"])


def test_a_context_column_may_not_be_named_label() -> None:
    with pytest.raises(SchemaError, match="column label: expected one source"):
        run(behavior([0]), [], ["label"])
