"""The distribution of the rolling states: a chain of daily steps equals counting from scratch, on every day."""

from __future__ import annotations

from functools import partial
from typing import Any

import ibis
import pyarrow as pa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dssm_assets.core.features_raw.activity import roll_activity, roll_pair_activity
from dssm_assets.core.features_raw.preferences import roll_preferences
from dssm_assets_tests.core.features_raw.worlds import as_text_ids, at, day_name, log, whole_log

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


STATES = {
    "user_activity": partial(roll_activity, entity="user_id", statistic_days=WINDOWS, value_columns=["price"]),
    "item_activity": partial(roll_activity, entity="item_id", statistic_days=WINDOWS, value_columns=["price"]),
    "pair_activity": partial(roll_pair_activity, window_days=max(WINDOWS)),
    "preferences": partial(roll_preferences, preference_days=2, **PREFERENCES),
}


@ROLLING
@given(ROWS, st.booleans(), st.sampled_from(sorted(STATES)))
def test_the_state_rolled_day_by_day_equals_the_state_of_all_days(con, rows, text_ids, name) -> None:
    days, state = _days(rows, text_ids), None
    for day in range(DAYS):
        leaving = {day - window for window in WINDOWS} if name != "pair_activity" else set()
        recent = {earlier: days[earlier] for earlier in sorted({*leaving, day}) if earlier >= 0}
        expression, key = partial(STATES[name], ds=day_name(day)), (name, day, text_ids)
        state = _query(con, key, expression, log=whole_log(recent), previous=state)
        past = whole_log({earlier: days[earlier] for earlier in range(day + 1)})
        assert state.equals(_query(con, ("all days", *key), expression, log=past))
