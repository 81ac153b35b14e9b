"""Raw tables become canonical tables, and every fault is named."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest

from dssm_assets.core.config.pipeline import BehaviorTable, Events
from dssm_assets.core.errors import DuplicateKeyError, EmptyDayError, SchemaError
from dssm_assets.core.schema import TableSpec, check_no_nulls, check_schema
from dssm_assets.core.sources import normalise
from dssm_assets.core.sources.canonical_tables import BEHAVIOR_TABLE, ITEM_TABLE, USER_TABLE
from dssm_assets.core.sources.normalise import Entities, normalise_behavior

EVENTS = Events(funnel=["expr", "click"], positive=["click"])
DAY = "2026-01-01"
DAY_S = 1_767_225_600  # 2026-01-01 00:00:00 UTC


def normalise_entities(spec: TableSpec, raw: pa.Table) -> Entities:
    return normalise.normalise_entities(raw, spec)


class Normalised(NamedTuple):
    table: pa.Table
    counts: dict[str, int]


def behavior(raw: dict[str, Any] | pa.Table, day: str = DAY, timezone: str = "UTC", **config: Any) -> Normalised:
    table = raw if isinstance(raw, pa.Table) else pa.table(raw)
    return Normalised(*normalise_behavior(table, BehaviorTable(uri="log", **config), EVENTS, timezone=timezone, day=day))


def log(**columns: Any) -> dict[str, Any]:
    return {"user_id": [1], "item_id": [5], "event": ["click"], "event_time": [DAY_S]} | columns


def test_users_are_sorted_and_plain() -> None:
    raw = pa.table(
        {
            "city": pa.array(["b", "a"]).dictionary_encode(),
            "user_id": pa.array([9, 2], pa.int32()),
            "note": pa.nulls(2),
            "tags": pa.array(["x", None], pa.large_string()),
        }
    )
    result = normalise_entities(USER_TABLE, raw)
    expected = pa.table({"user_id": [2, 9], "city": ["a", "b"], "note": pa.nulls(2, pa.string()), "tags": [None, "x"]})
    assert result.table.equals(expected)
    check_schema(USER_TABLE, result.table.schema)


def test_items_with_text_ids() -> None:
    result = normalise_entities(ITEM_TABLE, pa.table({"item_id": ["b", "a"], "price": [1.0, 2.0]}))
    assert result.table.to_pydict() == {"item_id": ["a", "b"], "price": [2.0, 1.0]}
    check_schema(ITEM_TABLE, result.table.schema)


def test_an_item_listed_twice_is_refused_by_name() -> None:
    raw = pa.table({"item_id": [4, 3, 4, 3, 3, 9]})
    with pytest.raises(DuplicateKeyError, match=r"table item_table, column item_id.*2 ids more than once: 3, 4\."):
        normalise_entities(ITEM_TABLE, raw)


def test_users_without_ids_or_rows_are_refused() -> None:
    with pytest.raises(SchemaError, match=r"user_id: expected a value in every row, got 2 missing in 3 rows"):
        normalise_entities(USER_TABLE, pa.table({"user_id": ["a", "", None]}))
    with pytest.raises(
        SchemaError, match=r"user_id: expected the column to exist, got columns household.*map it in tables\.user\.columns"
    ):
        normalise_entities(USER_TABLE, pa.table({"household": [1]}))
    with pytest.raises(EmptyDayError, match="table user_table: expected at least one row"):
        normalise_entities(USER_TABLE, pa.table({"user_id": pa.array([], pa.int64())}))


def test_behavior_has_the_columns_of_its_contract_in_order() -> None:
    raw = pa.table(
        {
            "net": pa.array([1, 2, 1, 1], pa.int8()),
            "event": ["click", "click", "expr", "click"],
            "user_id": pa.array([2, 1, 1, 1], pa.int32()),
            "item_id": [7, 7, 7, 6],
            "event_time": [DAY_S + 5, DAY_S + 5, DAY_S + 5, DAY_S + 5],
            "playtime": pa.array([None, 2, 3, 4], pa.int16()),
            "kept": ["k0", "k1", "k2", "k3"],
        }
    )
    result = behavior(raw, value_columns=["playtime"], context_columns=["net"])
    at = (DAY_S + 5) * 1000
    expected = pa.table(
        {
            "request_id": pa.nulls(4, pa.string()),
            "user_id": [1, 1, 1, 2],
            "item_id": [6, 7, 7, 7],
            "event": ["click", "click", "expr", "click"],
            "event_time_ms": [at] * 4,
            "playtime": [4.0, 2.0, 3.0, None],
            "net": ["1", "2", "1", "1"],
            "kept": ["k3", "k1", "k2", "k0"],
        }
    )
    assert result.table.equals(expected)
    assert result.counts == {"rows": 4, "rows_on_other_days": 0, "users": 2, "items": 2, "expr_rows": 1, "click_rows": 3}
    check_schema(BEHAVIOR_TABLE, result.table.schema)
    check_no_nulls(BEHAVIOR_TABLE, result.table)


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]])
def test_equal_keys_have_one_order_whatever_that_of_the_source(order: list[int]) -> None:
    raw = pa.table(
        log(
            user_id=[1] * 4,
            item_id=[5] * 4,
            event=["click"] * 4,
            event_time=[DAY_S] * 4,
            request_id=["b", "b", "a", None],
            price=[2.0, 1.0, 3.0, 4.0],
            tags=[["x"], ["x"], ["y"], []],
        )
    ).take(order)
    table = behavior(raw, value_columns=["price"], keep=["tags"]).table
    assert table.column("request_id").to_pylist() == ["a", "b", "b", None]
    assert table.column("price").to_pylist() == [3.0, 1.0, 2.0, 4.0]
    assert table.column("tags").to_pylist() == [["y"], ["x"], ["x"], []]


def test_kept_columns_without_an_order_are_left_out_of_it() -> None:
    kept = pa.array([b"b" * 16, b"a" * 16], pa.uuid())
    raw = pa.table(log(user_id=[1, 1], item_id=[5, 5], event=["click"] * 2, event_time=[DAY_S] * 2)).append_column("kept", kept)
    assert behavior(raw, keep=["kept"]).table.column("kept").combine_chunks() == kept


def test_rows_of_another_day_are_kept_and_counted() -> None:
    raw = {
        "user_id": [1, 1, 1],
        "item_id": [5, 6, 7],
        "event": ["click"] * 3,
        "event_time": [DAY_S - 1, DAY_S, DAY_S + 86_399],
    }
    assert behavior(raw).counts["rows_on_other_days"] == 1
    assert behavior(raw).table.num_rows == 3
    # In Berlin 23:59:59 UTC is already the next day, and so is 2025-12-31 23:59:59 UTC the first of January.
    assert behavior(raw, timezone="Europe/Berlin").counts["rows_on_other_days"] == 1


def test_unknown_events_are_named_with_their_counts() -> None:
    raw = {"user_id": [1] * 4, "item_id": [5] * 4, "event": ["share", "click", "like", "share"], "event_time": [DAY_S] * 4}
    with pytest.raises(
        SchemaError,
        match=r"column event: expected events of the funnel.*'like' \(1 rows\), 'share' \(2 rows\).*add them to events.funnel",
    ):
        behavior(raw)


def test_all_faults_are_raised_together() -> None:
    raw = {"user_id": [1, None], "event": ["click", "bad"], "event_time": [DAY_S, None], "price": ["x", "1"]}
    with pytest.raises(SchemaError) as caught:
        behavior(raw, value_columns=["price"], context_columns=["page"])
    places = [fault.where.removeprefix("table behavior_table, column ") for fault in caught.value.faults]
    assert places == ["event", "event_time_ms", "item_id", "page", "price", "user_id"]
    assert "got columns user_id, event, event_time, price" in str(caught.value)


def test_a_missing_event_name_is_refused() -> None:
    with pytest.raises(SchemaError, match="column event: expected a value in every row, got 1 missing in 1 rows"):
        behavior(log(event=pa.array([None], pa.string())))


def test_an_empty_day_needs_allow_empty_days() -> None:
    empty = pa.table(log()).slice(0, 0)
    with pytest.raises(EmptyDayError, match=r"table behavior_table, day 2026-01-01.*allow_empty_days"):
        behavior(empty)
    result = behavior(empty, allow_empty_days=True, value_columns=[])
    assert result.table.schema.equals(behavior(log()).table.schema)
    assert result.counts == {"rows": 0, "rows_on_other_days": 0, "users": 0, "items": 0, "expr_rows": 0, "click_rows": 0}


def test_a_constant_event_names_every_row() -> None:
    raw = {name: values for name, values in log().items() if name != "event"}
    assert behavior(raw, constant_event="click").table.column("event").to_pylist() == ["click"]
    assert behavior(pa.table(raw).slice(0, 0), constant_event="click", allow_empty_days=True).table.num_rows == 0


@pytest.mark.parametrize("is_sorted", [True, False])
@pytest.mark.parametrize("rows", [1, 3, 100])
def test_rows_are_those_of_the_sorted_table(monkeypatch: pytest.MonkeyPatch, rows: int, is_sorted: bool) -> None:
    monkeypatch.setattr(normalise, "ROWS", rows)
    ids = np.arange(10, 27)
    if not is_sorted:
        ids = np.random.Generator(np.random.PCG64(1)).permutation(ids)
    whole = pa.table(
        {
            "town": pa.array([f"t{number}" for number in ids]).dictionary_encode(),
            "user_id": pa.array(ids, pa.int32()),
            "tags": pa.array([[int(number)] * (number % 3) for number in ids]),
            "nothing": pa.nulls(len(ids)),
        }
    )
    pieces = pa.concat_tables([whole.slice(start, 5).combine_chunks() for start in range(0, len(ids), 5)])
    found = normalise_entities(USER_TABLE, pieces)
    assert [batch.num_rows for batch in found.batches()] == [min(rows, 17 - at) for at in range(0, 17, rows)]
    assert found.table.to_pylist() == [
        {"user_id": number, "town": f"t{number}", "tags": [number] * (number % 3), "nothing": None} for number in range(10, 27)
    ]
    assert found.table.schema.types == [pa.int64(), pa.string(), pa.list_(pa.int64()), pa.string()]
