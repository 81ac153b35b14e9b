"""The preference state and its lists, by hand, and the order of lists under threads."""

from __future__ import annotations

from functools import partial

import ibis
import numpy as np
import pyarrow as pa

from dssm_assets.core.features_raw.preferences import collect_preferences, order_preferences, roll_preferences
from dssm_assets_tests.core.features_raw.worlds import at, day_name, log, run, with_ds

DAYS = {
    0: log(
        [
            (1, 10, "click", at(0), None, "a", "x"),
            (1, 11, "click", at(0), None, "a", None),
            (1, 12, "expr", at(0), None, "b", "x"),
        ]
    ),
    1: log([(1, 12, "click", at(1), None, "b", "x")]),
}


def test_only_positive_events_with_a_value_count(con) -> None:
    roll = partial(roll_preferences, preference_days=1, preference_columns=["category", "brand"], positive_events=["click"])
    first = run(con, roll(with_ds({0: DAYS[0]}), ds=day_name(0)))
    assert first.to_pydict() == {"user_id": [1, 1], "attribute": ["brand", "category"], "value": ["x", "a"], "count": [1, 2]}
    # A window of one day: day 0 leaves as day 1 comes; values whose count is 0 are gone.
    second = run(con, roll(with_ds(DAYS), ibis.memtable(first), ds=day_name(1)))
    assert second.to_pydict() == {"user_id": [1, 1], "attribute": ["brand", "category"], "value": ["x", "b"], "count": [1, 1]}


def test_lists_are_ordered_cut_and_never_null(con) -> None:
    state = pa.table(
        {
            "user_id": pa.array(["u", "u", "u", "u", "v"]),
            "attribute": ["category", "category", "category", "category", "brand"],
            "value": ["b", "a", "c", "d:e", "x"],
            "count": pa.array([2, 2, 10, 1, 3], pa.int64()),
        }
    )
    attributes = ["category", "brand"]
    lists = run(con, collect_preferences(ibis.memtable(state), attributes=attributes).order_by("user_id"))
    assert order_preferences(lists, attributes=attributes, top=3).to_pydict() == {
        "user_id": ["u", "v"],
        "category_preference": [["c:10", "a:2", "b:2"], []],
        "brand_preference": [[], ["x:3"]],
    }


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
        lists = engine.to_pyarrow(collect_preferences(table, attributes=["category"]).order_by("user_id"))
        results.append(order_preferences(lists, attributes=["category"], top=20))
    assert results[0].equals(results[1])
    assert results[0].equals(results[2])
    first = results[0].column("category_preference")[0].as_py()
    parsed = [(-int(entry.rsplit(":", 1)[1]), entry.rsplit(":", 1)[0]) for entry in first]
    assert parsed == sorted(parsed)
    assert len(parsed) == 20
