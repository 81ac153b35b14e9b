"""The preference state and its lists, by hand, and the order of lists under threads."""

from __future__ import annotations

import ibis
import numpy as np
import pyarrow as pa
import pytest

from dssm_assets.core.arrays.ids import IdIndex
from dssm_assets.core.errors import WindowIncompleteError
from dssm_assets.core.features_raw.preferences import list_preferences, rank_preferences, roll_preferences
from dssm_assets_tests.core.features_raw.worlds import at, log, run

DAY0 = log(
    [
        (1, 10, "click", at(0), None, "a", "x"),
        (1, 11, "click", at(0), None, "a", None),
        (1, 12, "expr", at(0), None, "b", "x"),
    ]
)
DAY1 = log([(1, 12, "click", at(1), None, "b", "x")])
OPTIONS = {"preference_columns": ["category", "brand"], "positive_events": ["click"]}


def _step(con, today, leaving, previous):
    gone = None if leaving is None else ibis.memtable(leaving)
    state = None if previous is None else ibis.memtable(previous)
    return run(con, roll_preferences(today=ibis.memtable(today), leaving=gone, previous=state, **OPTIONS))


def test_only_positive_events_with_a_value_count(con) -> None:
    first = _step(con, DAY0, None, None)
    assert first.to_pydict() == {"user_id": [1, 1], "attribute": ["brand", "category"], "value": ["x", "a"], "count": [1, 2]}
    # A window of one day: day 0 leaves as day 1 comes; what reaches 0 is gone.
    second = _step(con, DAY1, DAY0, first)
    assert second.to_pydict() == {"user_id": [1, 1], "attribute": ["brand", "category"], "value": ["x", "b"], "count": [1, 1]}


def test_leaving_day_without_a_previous_state_is_refused(con) -> None:
    with pytest.raises(WindowIncompleteError, match="user_preferences"):
        _step(con, DAY1, DAY0, None)


def test_lists_are_ordered_cut_and_never_null(con) -> None:
    state = pa.table(
        {
            "user_id": pa.array(["u", "u", "u", "u", "v"]),
            "attribute": ["category", "category", "category", "category", "brand"],
            "value": ["b", "a", "c", "d:e", "x"],
            "count": pa.array([2, 2, 10, 1, 3], pa.int64()),
        }
    )
    lists = run(con, list_preferences(ibis.memtable(state), attributes=["category", "brand"], top=3))
    assert lists.to_pydict() == {
        "user_id": ["u", "v"],
        "category_preference": [["c:10", "a:2", "b:2"], []],
        "brand_preference": [[], ["x:3"]],
    }
    ordered = state.sort_by([("user_id", "ascending"), ("attribute", "ascending"), ("value", "ascending")])
    users = pa.array(["t", "u", "v"])
    assert _rank(ordered, users, "category", 3) == [[], ["c:10", "a:2", "b:2"], []]
    assert _rank(ordered, users, "brand", 3) == [[], [], ["x:3"]]
    assert _rank(ordered, users, "colour", 3) == [[], [], []]
    assert _rank(ordered.slice(0, 0), users, "brand", 3) == [[], [], []]
    assert _rank(ordered.slice(0, 0), users.slice(0, 0), "brand", 3) == []


def _rank(state: pa.Table, users: pa.Array, attribute: str, top: int) -> list[list[str]]:
    """Returns the lists of a state in two parts with a dictionary each, as it is read."""
    parts = [state.slice(0, len(state) // 2), state.slice(len(state) // 2)]
    encoded = [_encode(part) for part in parts if len(part)] or [_encode(state)]
    lists = rank_preferences(pa.concat_tables(encoded), IdIndex(users), np.ones(len(users), bool), attribute, top)
    assert lists.type == pa.list_(pa.string())
    return lists.to_pylist()


def test_ranked_lists_are_those_of_users_with_activity() -> None:
    """User 1 has a profile alone, and user 9 not even that: joining the lists to the statistics leaves both out."""
    state = pa.table(
        {"user_id": [1, 2, 9], "attribute": ["brand"] * 3, "value": ["x", "y", "z"], "count": pa.array([3, 2, 1], pa.int64())}
    )
    users, is_active = pa.array([1, 2, 3]), np.array([False, True, True])
    assert rank_preferences(_encode(state), IdIndex(users), is_active, "brand", 2).to_pylist() == [[], ["y:2"], []]


def test_ranked_lists_of_many_values_with_high_counts() -> None:
    """Value and count are one number of 64 bits: 2^17 values times counts up to 2^17 exceed 32."""
    size = 1 << 17
    values = [f"v{number:06d}" for number in range(size)]
    state = pa.table(
        {"user_id": np.ones(size, np.int64), "attribute": ["brand"] * size, "value": values, "count": np.arange(1, size + 1)}
    )
    assert rank_preferences(_encode(state), IdIndex(pa.array([1])), np.array([True]), "brand", 1).to_pylist() == [
        [f"v{size - 1:06d}:{size}"]
    ]


def _encode(part: pa.Table) -> pa.Table:
    columns = {name: part.column(name).combine_chunks() for name in part.column_names}
    return pa.table(columns | {name: columns[name].dictionary_encode() for name in ("attribute", "value")})


def test_lists_have_the_same_order_with_threads() -> None:
    rng = np.random.default_rng(3)
    size = 200_000
    codes = np.unique(rng.integers(0, 2_000 * 500, size))
    state = pa.table(
        {
            "user_id": codes // 500,
            "attribute": pa.array(["category"] * len(codes)),
            "value": pa.array([str(code) for code in codes % 500]),
            "count": rng.integers(1, 4, len(codes)),
        }
    )
    results = []
    for threads, order in ((1, np.arange(len(codes))), (4, np.arange(len(codes))), (4, rng.permutation(len(codes)))):
        engine = ibis.duckdb.connect(threads=threads)
        table = engine.create_table("state", state.take(pa.array(order)))
        results.append(engine.to_pyarrow(list_preferences(table, attributes=["category"], top=20)))
    assert results[0].equals(results[1])
    assert results[0].equals(results[2])
    ordered = state.sort_by([("user_id", "ascending"), ("value", "ascending")])
    ranked = _rank(ordered, results[0].column("user_id").combine_chunks(), "category", 20)
    assert ranked == results[0].column("category_preference").to_pylist()
    first = results[0].column("category_preference")[0].as_py()
    parsed = [(-int(entry.rsplit(":", 1)[1]), entry.rsplit(":", 1)[0]) for entry in first]
    assert parsed == sorted(parsed)
    assert len(parsed) == 20
