"""Which events become rows, with which label and in which order."""

from __future__ import annotations

import ibis
import pyarrow as pa

from dssm_assets.core.samples.sample import SampleWeights, label_events
from dssm_assets.core.samples.sample_tables import SAMPLE
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
    built = label_events(ibis.memtable(table), positive_events=["buy"], exposure_events=exposure, context_columns=context)
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


def test_with_exposures_other_events_are_left_out() -> None:
    assert run(behavior([0, 1, 2, 3]), ["expr"], [])["event"].to_pylist() == ["expr", "expr", "buy"]


def test_label_events_does_not_depend_on_the_order_of_the_log() -> None:
    assert run(behavior([3, 2, 1, 0]), [], ["page"]).equals(run(behavior([0, 1, 2, 3]), [], ["page"]))


def test_a_context_column_that_every_sample_has_occurs_once() -> None:
    assert run(behavior([0]), [], ["hour", "page"]).column_names == [
        *("request_id", "user_id", "item_id", "event", "event_time_ms", "label", "hour", "weekday", "page")
    ]


ROWS = pa.table({"event": ["buy", "click", "like", "buy"]})


def test_the_weight_of_the_oldest_sample_is_above_0() -> None:
    assert (SampleWeights(half_life_days=0.01, window_days=400).weigh(ROWS, 0) > 0).all()
