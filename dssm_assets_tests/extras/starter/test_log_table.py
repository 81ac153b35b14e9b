"""A log's rows in a database: times after an id's first event are counted, columns that follow from the item are named."""

from __future__ import annotations

import pyarrow as pa

from dssm_assets.core.config.pipeline import BehaviorTable, Events
from dssm_assets.extras.starter.log_table import LogTable, find_habits, select_positive

TABLE = BehaviorTable(uri="log", constant_event="buy")
DAY_S = 86_400


def _log(users: list[str | None], days: list[int]) -> LogTable:
    log = LogTable(TABLE, "UTC")
    times = [DAY_S * (20_000 + day) + DAY_S // 2 for day in days]
    log.observe(pa.table({"user_id": users, "item_id": [1] * len(users), "event_time": times}))
    return log


def test_times_later_than_the_first_event_are_counted_by_hand() -> None:
    # First events: a and b on day 3, c on day 5. Times: a earlier, b on the same day but later, c a day later; d has no event.
    log = _log(["a", "a", "b", "b", "c"], [5, 3, 3, 9, 5])
    times = pa.array([(DAY_S * (20_000 + day) + 80_000) * 1000 for day in (1, 3, 6, 9)])
    assert log.later_frac("user_id", pa.array(["a", "b", "c", "d"]), times) == 1 / 3
    assert log.later_frac("user_id", pa.array(["d"]), times[:1]) == 0


def test_rows_without_a_value_count_as_faults_and_not_as_events() -> None:
    log = _log(["a", None], [3, 4])
    (fault,) = log.faults(Events(funnel=["buy"], positive=["buy"]))
    assert str(fault).startswith("table behavior_table, column user_id: expected a value in every row, got 1 missing in 2 rows")
    assert (log.rows, dict(log.count_events()), list(log.count_days())) == (2, {"buy": 2}, ["2024-10-07", "2024-10-08"])
    assert select_positive(log.db, ["buy"]) == 1
    assert select_positive(log.db, ["click"]) == 0
    assert find_habits(log.db) is None


def test_a_column_that_cannot_be_read_is_one_fault() -> None:
    log = LogTable(TABLE, "UTC")
    for _ in range(2):
        log.observe(pa.table({"user_id": [1.5], "item_id": [1], "event_time": [1_700_000_000]}))
    (fault,) = log.faults(Events(funnel=["buy"], positive=["buy"]))
    assert "whole numbers" in str(fault)


def test_a_column_follows_from_the_item_if_rows_of_an_item_share_it() -> None:
    """300 rows of 3 items: the group is the item's, mostly is so in nine of ten rows, the other one runs through three values."""
    log = LogTable(TABLE, "UTC", ["group", "mostly", "other", "constant"])
    for begin in (0, 150):
        rows = range(begin, begin + 150)
        columns = {
            "group": ["xyz"[n % 3] for n in rows],
            "mostly": ["S" if n % 30 < 3 else "xyz"[n % 3] for n in rows],
            "other": ["abc"[n // 3 % 3] for n in rows],
            "constant": ["a" for _ in rows],
        }
        ids = {"user_id": [1] * 150, "item_id": [n % 3 for n in rows], "event_time": [DAY_S] * 150}
        log.observe(pa.table(ids | columns))
    assert log.columns_of_items() == {"group", "mostly"}
