"""Running states of several days: what the changes of each day add up to."""

import pyarrow as pa

from dssm_assets.core.features_raw.signed_days import list_moves, running_states, sum_by_key

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


def test_rows_are_summed_by_key_in_its_order():
    kind = pa.schema([("user_id", pa.int64()), ("event", pa.dictionary(pa.int32(), pa.string())), ("count", pa.int64())])
    state = pa.table([[1, 2, 2], ["buy", "buy", "click"], [3, 1, 7]], schema=kind)
    changed = pa.table([[0, 2], ["click", "buy"], [4, -1]], schema=kind)
    summed = sum_by_key(pa.concat_tables([state, changed]), ["user_id", "event"], "count")
    assert [tuple(row.values()) for row in summed.to_pylist()] == [
        (0, "click", 4),
        (1, "buy", 3),
        (2, "buy", 0),
        (2, "click", 7),
    ]
    assert sum_by_key(state.slice(0, 0), ["user_id", "event"], "count").num_rows == 0
