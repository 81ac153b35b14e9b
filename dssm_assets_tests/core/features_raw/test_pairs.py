"""The pair state and distinct counts, by hand."""

from __future__ import annotations

import ibis
import pyarrow as pa

from dssm_assets.core.features_raw.pairs import distinct_counterparts, pair_activity, pair_activity_from_scratch
from dssm_assets_tests.core.features_raw.worlds import as_text_ids, at, day_name, log, run, with_ds

DAY0 = log([(1, 10, "click", at(0), None, None, None), (1, 11, "click", at(0), None, None, None)])
DAY1 = log([(1, 10, "click", at(1), None, None, None), (1, 10, "click", at(1, 5), None, None, None)])
DAY3 = log([(2, 10, "buy", at(3), None, None, None)])


def test_a_pair_is_renewed_and_leaves_with_the_window(con) -> None:
    first = run(con, pair_activity(ibis.memtable(DAY0), None, ds=day_name(0), window_days=3))
    second = run(con, pair_activity(ibis.memtable(DAY1), ibis.memtable(first), ds=day_name(1), window_days=3))
    assert second.column("item_id").to_pylist() == [10, 11]
    assert second.column("last_date").to_pylist() == ["2024-01-02", "2024-01-01"]
    # Day 3's window of 3 days starts with day 1: (1, 11) has left, (1, 10) has not.
    third = run(con, pair_activity(ibis.memtable(DAY3), ibis.memtable(second), ds=day_name(3), window_days=3))
    assert third.to_pydict() == {
        "user_id": [1, 2],
        "item_id": [10, 10],
        "event": ["click", "buy"],
        "last_date": ["2024-01-02", "2024-01-04"],
    }
    scratch = run(con, pair_activity_from_scratch(with_ds({0: DAY0, 1: DAY1, 3: DAY3}), day_name(3), window_days=3))
    assert scratch.equals(third)


def test_distinct_counterparts_by_hand(con) -> None:
    pairs = pa.table(
        {
            "user_id": pa.array([1, 1, 1, 2], pa.int64()),
            "item_id": pa.array([10, 11, 11, 10], pa.int64()),
            "event": ["click", "click", "buy", "click"],
            "last_date": ["2024-01-03", "2024-01-02", "2024-01-03", "2024-01-01"],
        }
    )
    users = run(con, distinct_counterparts(ibis.memtable(pairs), "user_id", "2024-01-03", [1, 3], ["click"]))
    assert users.to_pydict() == {
        "user_id": [1, 2],
        "click_distinct_items_1d": [1, 0],
        "click_distinct_items_3d": [2, 1],
    }
    items = run(con, distinct_counterparts(ibis.memtable(as_text_ids(pairs)), "item_id", "2024-01-03", [3], ["click", "buy"]))
    assert items.to_pydict() == {
        "item_id": ["10", "11"],
        "click_distinct_users_3d": [2, 1],
        "buy_distinct_users_3d": [0, 1],
    }
    assert items.schema.field("buy_distinct_users_3d").type == pa.int64()
