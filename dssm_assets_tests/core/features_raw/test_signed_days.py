"""Running states of several days: what the changes of each day add up to."""

from unittest import mock

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from dssm_assets.core.features_raw.signed_days import list_moves, merge_changes, running_states
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.core.features_raw import signed_days

DAYS = ["2024-01-02", "2024-01-03", "2024-01-04"]


def test_moves_enter_all_windows_and_leave_each_once():
    moves = list_moves(DAYS[:2], [1, 3]).to_pylist()
    assert [tuple(move.values()) for move in moves] == [
        ("2024-01-02", "2024-01-02", 0),
        ("2024-01-03", "2024-01-03", 0),
        ("2024-01-01", "2024-01-02", 1),
        ("2024-01-02", "2024-01-03", 1),
        ("2023-12-30", "2024-01-02", 3),
        ("2023-12-31", "2024-01-03", 3),
    ]


def test_states_add_up_by_day_and_begin_with_their_key():
    added = pa.table(
        {
            "ds": [DAYS[0], DAYS[0], DAYS[2], DAYS[2]],
            "user_id": ["b", "c", "a", "b"],
            "count": [3, 1, 7, -2],
            "first": [50, 20, 90, None],
            "last": pa.array([50, None, 90, 70], pa.int64()),
            "date": ["2023-12-31", "2024-01-02", "2024-01-04", "2024-01-04"],
            "position": [1, 2, 0, 1],
        }
    )
    found = running_states(added, DAYS, ["user_id"], sums=["count"], least=["first"], greatest=["last", "date"])
    states = {ds: [tuple(row.values()) for row in table.to_pylist()] for ds, table in found}
    before = [("b", 3, 50, 50, "2023-12-31"), ("c", 1, 20, None, "2024-01-02")]
    assert states == {
        DAYS[0]: before,
        DAYS[1]: before,
        DAYS[2]: [("a", 7, 90, 90, "2024-01-04"), ("b", 1, 50, 70, "2024-01-04"), before[1]],
    }


def test_days_without_any_key_have_empty_states():
    none = pa.schema([("ds", pa.string()), ("user_id", pa.int64()), ("count", pa.int64()), ("position", pa.int64())])
    states = list(running_states(none.empty_table(), DAYS, ["user_id"], sums=["count"]))
    assert [(ds, table.num_rows, table.column_names) for ds, table in states] == [(ds, 0, ["user_id", "count"]) for ds in DAYS]


def merged(state, changes, kind, sums=("count",), least=None):
    tables = [
        pa.Table.from_pylist([dict(zip(kind.names, row, strict=True)) for row in rows], kind) for rows in (state, changes)
    ]

    def keep(rows):
        return pc.greater_equal(rows.column(rows.num_columns - 1), -9 if least is None else least)

    return [tuple(row.values()) for row in merge_changes(*tables, kind.names[:-1], keep, sums=sums).to_pylist()]


@pytest.mark.parametrize("event", [pa.string(), pa.dictionary(pa.int32(), pa.string())])
def test_changes_are_added_to_the_rows_with_their_key(event):
    kind = pa.schema([("user_id", pa.int64()), ("event", event), ("count", pa.int64())])
    state, changed = (
        [(1, "buy", 3), (2, "buy", 1), (2, "click", 7)],
        [(0, "click", 4), (2, "buy", -1), (2, "call", 5), (3, "buy", 1)],
    )
    assert merged(state, changed, kind) == [
        (0, "click", 4),
        (1, "buy", 3),
        (2, "buy", 0),
        (2, "call", 5),
        (2, "click", 7),
        (3, "buy", 1),
    ]
    assert merged(state, changed, kind, least=1) == [row for row in merged(state, changed, kind) if row[-1]]
    assert merged(state, [], kind) == state
    assert merged([], changed, kind) == changed
    assert merged([], [], kind) == []


def test_changes_keep_the_least_and_the_greatest():
    columns = {"user_id": [1, 2], "first": [5, 3], "last": [6, None]}
    state = pa.table(columns)
    changes = pa.table({"user_id": [1, 2, 3], "first": pa.array([7, None, 1]), "last": pa.array([8, 4, None], pa.int64())})
    given = {"least": ["first"], "greatest": ["last"]}
    made = merge_changes(state, changes, ["user_id"], lambda rows: pc.is_valid(rows.column(0)), **given)
    assert made.to_pydict() == {"user_id": [1, 2, 3], "first": [5, 3, 1], "last": [8, 4, None]}


@given(
    st.dictionaries(st.tuples(st.integers(0, 3), st.sampled_from("abc"), st.sampled_from("xy")), st.integers(0, 9)),
    st.dictionaries(st.tuples(st.integers(0, 3), st.sampled_from("abc"), st.sampled_from("xy")), st.integers(0, 9)),
    st.sampled_from([pa.int64(), pa.string()]),
    st.sampled_from([2, 64]),
)
def test_merged_changes_are_those_of_a_dictionary(state, changes, user, stride):
    kind = pa.schema([("user_id", user), ("item_id", pa.string()), ("event", pa.string()), ("date", pa.int64())])
    shown = str if user == pa.string() else int
    rows = [
        [(shown(key[0]), *key[1:], known[key]) for key in sorted(known)] for known in (state, changes, {**state, **changes})
    ]
    with mock.patch.object(signed_days, "_STRIDE", stride):
        assert merged(*rows[:2], kind, sums=(), least=5) == [row for row in rows[2] if row[-1] >= 5]
