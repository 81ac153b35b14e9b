"""Histories are complete and sorted, and end strictly before the cutoff."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dssm_assets.core.arrays.ids import IdIndex
from dssm_assets.core.errors import SchemaError, WindowIncompleteError
from dssm_assets.core.samples import history as module
from dssm_assets.core.samples.history import HistoryCsr, build_history, history_end
from dssm_assets_tests.core.samples.worlds import bucketize, history_day

CORPUS = IdIndex(pa.array([100, 200, 300]))
I64 = st.integers(-(2**63), 2**63 - 1)

DAY_0 = history_day([(9, [(5, 100, 1), (5, 200, None)]), (4, [(7, 999, 3)])])
DAY_1 = history_day([(4, [(11, 300, 4), (12, 300, 4)])])


def build(days: list[pa.Table]) -> HistoryCsr:
    return build_history(lambda _: days, CORPUS, bucketize, features=["seq__brand"])


def ends(history: HistoryCsr, pairs: list[tuple[int, int]]) -> list[int]:
    users = np.array([user for user, _ in pairs], dtype=np.int32)
    return history_end(history, users, np.array([cutoff for _, cutoff in pairs], dtype=np.int64)).tolist()


def test_build_history_of_two_days_by_hand() -> None:
    history, users = build([DAY_0, DAY_1]).to_tables()
    assert users.to_pylist() == [
        {"user_id": 4, "history_start": 0, "history_end": 3},
        {"user_id": 9, "history_start": 3, "history_end": 5},
    ]
    assert history.to_pydict() == {
        "item_index": [-1, 2, 2, 0, 1],
        "event_time_ms": [7, 11, 12, 5, 5],
        "seq__brand": [4, 5, 5, 2, 0],
    }
    assert [str(field.type) for field in history.schema] == ["int32", "int64", "int32"]
    assert [str(field.type) for field in users.schema] == ["int64", "int64", "int64"]
    assert all(field.metadata[b"description"] for schema in (history.schema, users.schema) for field in schema)


def test_bounds_of_users_without_a_history_are_empty() -> None:
    starts, stops = build([DAY_0, DAY_1]).bounds(np.array([1, -1, 0], np.int32))
    assert (starts.tolist(), stops.tolist()) == ([3, 0, 0], [5, 0, 3])
    starts, stops = build([DAY_0.slice(0, 0)]).bounds(np.array([-1], np.int32))
    assert (starts.tolist(), stops.tolist()) == ([0], [0])


def test_days_without_rows() -> None:
    empty = DAY_0.slice(0, 0)
    history = build([empty])
    assert (len(history.users), history.item_index.size) == (0, 0)
    assert ends(history, [(-1, 5)]) == [0]
    assert build([empty, DAY_1]).ends.tolist() == [2]
    assert [table.num_rows for table in history.to_tables()] == [0, 0]


def test_build_history_refuses_an_empty_window() -> None:
    with pytest.raises(WindowIncompleteError, match="at least one day"):
        build([])


def replace(name: str, values: pa.Array) -> pa.Table:
    return DAY_1.set_column(DAY_1.column_names.index(name), name, values)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (DAY_1.drop_columns(["seq__brand"]), "column seq__brand: expected the column to exist"),
        (replace("item_ids", pa.array([[300, None]])), "no null ids"),
        (replace("item_ids", pa.array([["a", "b"]])), "expected int64, the type of ids, got string"),
        (replace("user_id", pa.array([None], pa.int64())), "no null ids"),
    ],
)
def test_broken_days_are_refused(table: pa.Table, message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        build([table])


def test_days_of_two_id_types_are_refused() -> None:
    with pytest.raises(SchemaError, match="column user_id: expected int64, as on the days before, got string"):
        build([DAY_1, replace("user_id", pa.array(["4"]))])


@settings(deadline=None)
@given(
    events=st.lists(st.tuples(st.integers(0, 3), st.one_of(st.integers(0, 6), I64), st.integers(1, 9)), max_size=30),
    queries=st.lists(st.tuples(st.integers(0, 4), st.one_of(st.integers(-1, 7), I64)), max_size=20),
)
def test_history_end_equals_a_loop(events: list[tuple[int, int, int]], queries: list[tuple[int, int]]) -> None:
    rows = [(user, [(time, item, None)]) for user, time, item in events]
    history = build([history_day(rows)])
    known = {user: row for row, user in enumerate(history.users.ids.to_pylist())}
    expected_rows = sorted(events)
    assert history.event_time_ms.tolist() == [time for _, time, _ in expected_rows]
    expected = []
    for user, cutoff in queries:
        before = sum(1 for other, time, _ in events if other == user and time < cutoff)
        earlier_users = sum(1 for other, _, _ in events if other < user)
        expected.append(earlier_users + before if user in known else 0)
    assert ends(history, [(known.get(user, -1), cutoff) for user, cutoff in queries]) == expected


ITEMS = [7, 8, 9, 10]
SHUFFLED_CORPUS = IdIndex(pa.array([9, 7, 8]))
EVENT = st.tuples(st.integers(0, 4), st.sampled_from(ITEMS))
DAYS = st.lists(st.lists(st.tuples(st.integers(0, 3), st.lists(EVENT, max_size=4)), max_size=4), min_size=1, max_size=4)


def table(rows: Sequence[tuple[int, Sequence[tuple[int, int]]]]) -> pa.Table:
    """A day in which each event's brand is its item + 100."""
    return history_day([(user, [(time, item, item + 100) for time, item in events]) for user, events in rows])


def rows_of(history: HistoryCsr) -> list[tuple[Any, ...]]:
    users = np.repeat(history.users.ids.to_numpy(), history.ends - history.starts)
    columns = (users, history.event_time_ms, history.item_index, history.features["seq__brand"])
    return list(zip(*(column.tolist() for column in columns), strict=True))


@settings(deadline=None, max_examples=100)
@given(days=DAYS, block_rows=st.integers(1, 5))
def test_histories_are_all_events_sorted(days: list[Any], block_rows: int) -> None:
    with mock.patch.object(module, "BLOCK_ROWS", block_rows):
        tables = [table(day) for day in days]
        history = build_history(lambda _: tables, SHUFFLED_CORPUS, bucketize, features=["seq__brand"])
    place = {item: index for index, item in enumerate([9, 7, 8])}
    events = sorted((user, time, item) for day in days for user, bought in day for time, item in bought)
    assert rows_of(history) == [(user, time, place.get(item, -1), item + 101) for user, time, item in events]
    assert history.users.ids.to_pylist() == sorted({user for day in days for user, _ in day})
    assert history.starts.tolist() == [0, *history.ends.tolist()][: len(history.starts)]
