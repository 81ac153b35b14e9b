"""The distribution of the rolling states: a chain of daily steps equals counting from scratch, on every day."""

from __future__ import annotations

from functools import partial
from typing import Any

import ibis
import pyarrow as pa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dssm_assets.core.features_raw.activity import build_activity, build_pair_activity, roll_activity, roll_pair_activity
from dssm_assets.core.features_raw.preferences import build_preferences, roll_preferences
from dssm_assets_tests.core.features_raw.worlds import as_text_ids, at, day_name, log, run, whole_log, with_ds

WINDOWS = [1, 2, 4]
DAYS = 6
PREFERENCES = {"preference_columns": ["category", "brand"], "positive_events": ["click", "buy"]}

ROWS = st.lists(
    st.tuples(
        st.integers(0, DAYS - 1),
        st.integers(1, 3),
        st.integers(1, 3),
        st.sampled_from(["expr", "click", "buy"]),
        st.integers(0, 5),
        st.one_of(st.none(), st.floats(-50, 50, allow_nan=False)),
        st.sampled_from(["a", "b", None]),
        st.sampled_from(["x", None]),
    ),
    min_size=1,
    max_size=25,
)
ROLLING = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def _days(rows: list[tuple[Any, ...]], text_ids: bool) -> dict[int, pa.Table]:
    days = {}
    for day in range(DAYS):
        table = log([(u, i, e, at(day, ms), *rest) for d, u, i, e, ms, *rest in rows if d == day])
        days[day] = as_text_ids(table) if text_ids else table
    return days


_SQL: dict[Any, tuple[str, pa.Schema]] = {}
"""Queries: to compile one takes five times as long as to run it on a few rows."""


def _query(con: Any, key: Any, expression: Any, **tables: pa.Table | None) -> pa.Table:
    """Returns the rows of expression(**tables), which is compiled once per key."""
    for name, table in tables.items():
        if table is not None:
            con.con.register(name, table)
    if key not in _SQL:
        unbound = {
            name: None if table is None else ibis.table(ibis.Schema.from_pyarrow(table.schema), name=name)
            for name, table in tables.items()
        }
        made = expression(**unbound)
        _SQL[key] = ibis.to_sql(made, dialect="duckdb"), made.schema().to_pyarrow()
    sql, schema = _SQL[key]
    return con.con.sql(sql).to_arrow_table().cast(schema)


@ROLLING
@given(ROWS, st.booleans(), st.sampled_from(["user_id", "item_id"]))
def test_rolled_activity_equals_built_activity(con, rows, text_ids, entity) -> None:
    days, state = _days(rows, text_ids), None
    options = {"statistic_days": WINDOWS, "value_columns": ["price"]}
    for day in range(DAYS):

        def roll(today, previous, **leaving):
            gone = {window: leaving[f"leaving{window}"] for window in WINDOWS}
            return roll_activity(entity, today=today, leaving=gone, previous=previous, **options)

        gone = {f"leaving{window}": days.get(day - window) for window in WINDOWS}
        key = day, text_ids, entity
        state = _query(con, ("activity", key), roll, today=days[day], previous=state, **gone)

        def scratch(whole, day=day):
            return build_activity(entity, whole, day_name(day), **options)

        assert state.equals(_query(con, ("built activity", key), scratch, whole=whole_log(days)))


@ROLLING
@given(ROWS, st.booleans())
def test_rolled_pairs_equal_built_pairs(con, rows, text_ids) -> None:
    days, state = _days(rows, text_ids), None
    for day in range(DAYS):
        window = {"ds": day_name(day), "window_days": max(WINDOWS)}

        def roll(today, previous, window=window):
            return roll_pair_activity(today, previous, **window)

        state = _query(con, ("pairs", day, text_ids), roll, today=days[day], previous=state)

        def scratch(whole, day=day):
            return build_pair_activity(whole, day_name(day), window_days=max(WINDOWS))

        assert state.equals(_query(con, ("built pairs", day, text_ids), scratch, whole=whole_log(days)))


@ROLLING
@given(ROWS, st.booleans(), st.sampled_from(WINDOWS))
def test_rolled_preferences_equal_built_preferences(con, rows, text_ids, window) -> None:
    days, state = _days(rows, text_ids), None
    for day in range(DAYS):
        key = day, text_ids, window
        tables = {"today": days[day], "leaving": days.get(day - window), "previous": state}
        state = _query(con, ("preferences", key), partial(roll_preferences, **PREFERENCES), **tables)

        def scratch(whole, day=day):
            return build_preferences(whole, day_name(day), preference_days=window, **PREFERENCES)

        assert state.equals(_query(con, ("built preferences", key), scratch, whole=whole_log(days)))


def test_build_activity_by_hand(con) -> None:
    # User 1 clicks on days 0, 2 and 5: as of day 5 the windows of 1, 2 and 4 days hold 1, 1 and 2 of them.
    days = _days([(day, 1, 1, "click", 0, 1.0, "a", None) for day in (0, 2, 5)], text_ids=False)
    state = run(con, build_activity("user_id", with_ds(days), day_name(5), statistic_days=WINDOWS, value_columns=[]))
    assert state.select(["count_1d", "count_2d", "count_4d", "count_total"]).to_pylist() == [
        {"count_1d": 1, "count_2d": 1, "count_4d": 2, "count_total": 3}
    ]
