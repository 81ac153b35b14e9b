"""The enriched log: item texts, unknown ids, calendar and refused columns; the history of a day."""

from __future__ import annotations

import datetime as dt
from zoneinfo import ZoneInfo

import ibis
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.core.arrays.ids import IdIndex
from dssm_assets.core.errors import SchemaError
from dssm_assets.core.features_raw.behavior import (
    ItemTexts,
    calendar_columns,
    check_columns,
    collect_user_history,
    count_unknown_ids,
    enrich_behavior,
)
from dssm_assets_tests.core.features_raw.worlds import as_text_ids, at, log, run

ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Africa/Casablanca", "Australia/Lord_Howe"]

LOG = pa.table(
    {
        "request_id": pa.array([None, "r1", "r2", "r3"], pa.string()),
        "user_id": pa.array([2, 1, 1, 1], pa.int64()),
        "item_id": pa.array([99, 10, 10, 11], pa.int64()),
        "event": ["buy", "click", "click", "click"],
        "event_time_ms": pa.array([1, 5, 5, 5], pa.int64()),
    }
)
ITEMS = pa.table(
    {"item_id": pa.array([11, 10], pa.int64()), "category": pa.array([None, 7.0]), "size": [1.5, 2.0], "brand": ["y", ""]}
)


@pytest.mark.parametrize("is_encoded", [False, True])
@pytest.mark.parametrize("text_ids", [False, True])
def test_rows_get_the_texts_of_their_item(text_ids: bool, is_encoded: bool) -> None:
    log, items = (as_text_ids(LOG), as_text_ids(ITEMS)) if text_ids else (LOG, ITEMS)
    if is_encoded and text_ids:
        log = log.set_column(2, "item_id", log.column("item_id").dictionary_encode())
    users = IdIndex(pa.array(["1", "3"] if text_ids else [1, 3]))
    out, unknown = enrich_behavior(log, users, ItemTexts(items, ["brand", "category", "size"]), "UTC")
    assert out.column_names == [*LOG.column_names, "brand", "category", "size", "hour", "weekday"]
    assert out.select(LOG.column_names).cast(log.schema).equals(log)
    # As item features read them: whole floats without ".0", and "" is missing.
    assert out.column("category").to_pylist() == [None, "7", "7", None]
    assert out.column("size").to_pylist() == [None, "2", "2", "1.5"]
    assert out.column("brand").to_pylist() == [None, None, None, "y"]
    assert (out.column("hour").to_pylist(), out.column("weekday").to_pylist()) == ([0] * 4, [3] * 4)  # a Thursday
    again = enrich_behavior(log.slice(1), users, ItemTexts(items, []), "UTC")[1]
    counts = count_unknown_ids([unknown, again, enrich_behavior(log.slice(0, 1), users, ItemTexts(items, []), "UTC")[1]])
    assert counts == {"unknown_users": 1, "unknown_user_rows": 2, "unknown_items": 1, "unknown_item_rows": 2}


def test_a_log_without_rows_has_no_unknown_ids() -> None:
    assert count_unknown_ids([]) == {"unknown_users": 0, "unknown_user_rows": 0, "unknown_items": 0, "unknown_item_rows": 0}


def test_columns_that_do_not_fit_together_are_named() -> None:
    log, items, users = ({field.name: str(field.type) for field in table.schema} for table in (LOG, ITEMS, LOG))
    check_columns(log, items, users, ["brand"])
    with pytest.raises(SchemaError, match=r"(?s)2 faults.*item_table, column colour.*item_table, column shape"):
        check_columns(log, items, users, ["colour", "shape"])
    with pytest.raises(SchemaError, match=r"(?s)2 faults.*behavior_table, column hour.*item_table, column event"):
        check_columns({**log, "hour": "int32"}, {**items, "event": "string"}, users, ["event"])
    with pytest.raises(
        SchemaError, match=r"(?s)2 faults.*item_table, column item_id.*int64 and string.*user_table, column user_id"
    ):
        check_columns(log, {**items, "item_id": "string"}, {"user_id": "string"}, [])
    with pytest.raises(SchemaError, match=r"item_table, column tags.*whose values have a text"):
        ItemTexts(ITEMS.append_column("tags", pa.array([["a"], []])), ["tags"])


@given(st.lists(st.integers(0, 2_000_000_000_000), min_size=1, max_size=5), st.sampled_from(ZONES))
def test_hour_and_weekday_agree_with_python(instants: list[int], timezone: str) -> None:
    hours, weekdays = calendar_columns(pa.array(instants, pa.int64()), timezone)
    clocks = [dt.datetime.fromtimestamp(ms / 1000, ZoneInfo(timezone)) for ms in instants]
    assert hours.to_pylist() == [clock.hour for clock in clocks]
    assert weekdays.to_pylist() == [clock.weekday() for clock in clocks]


def test_repeated_hour_of_a_clock_change() -> None:
    # Berlin, Sunday 2024-10-27: 00:30 UTC reads 02:30 (summer), 01:30 UTC reads 02:30 (winter), 02:30 UTC reads 03:30.
    half_past_midnight = 1_729_989_000_000
    instants = pa.chunked_array([[half_past_midnight + hour * 3_600_000 for hour in range(3)]], pa.int64())
    hour, weekday = calendar_columns(instants, "Europe/Berlin")
    assert hour.to_pylist() == [2, 2, 3]
    assert weekday.to_pylist() == [6, 6, 6]
    assert (hour.type, weekday.type) == (pa.int32(), pa.int32())


DAY = log(
    [
        (2, 12, "click", at(0, 9), None, "c", None),
        (1, 11, "buy", at(0, 5), None, None, None),
        (1, 10, "click", at(0, 5), None, "a", None),
        (1, 12, "click", at(0, 1), None, "c", None),
        (1, 13, "expr", at(0, 2), None, "d", None),
        (3, 13, "expr", at(0, 2), None, "d", None),
    ]
)


@pytest.mark.parametrize("text_ids", [False, True])
def test_lists_are_aligned_and_ordered_by_time_then_item(con, text_ids: bool) -> None:
    table = as_text_ids(DAY) if text_ids else DAY
    expression = collect_user_history(ibis.memtable(table), positive_events=["click", "buy"], history_columns=["category"])
    out = run(con, expression)
    ids = [[12, 10, 11], [12]]
    assert out.column("item_ids").to_pylist() == ([[str(i) for i in row] for row in ids] if text_ids else ids)
    assert out.column("user_id").to_pylist() == (["1", "2"] if text_ids else [1, 2])
    assert out.column("event_times_ms").to_pylist() == [[at(0, 1), at(0, 5), at(0, 5)], [at(0, 9)]]
    assert out.column("category").to_pylist() == [["c", "a", None], ["c"]]
    assert out.schema.field("event_times_ms").type == pa.list_(pa.int64())


def test_day_without_positives_has_no_rows(con) -> None:
    out = run(con, collect_user_history(ibis.memtable(DAY), positive_events=["praise"], history_columns=["category"]))
    assert out.num_rows == 0
    assert out.column_names == ["user_id", "item_ids", "event_times_ms", "category"]
