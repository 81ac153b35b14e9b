"""A log in a database: counts, faults, columns that follow from the item; habits and warm pairs by hand, any window as counted directly."""

from __future__ import annotations

import datetime as dt

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from dssm_assets.core.config.evaluation import Gate
from dssm_assets.core.config.pipeline import BehaviorTable, Events
from dssm_assets.extras.starter import log_table
from dssm_assets.extras.starter.log_table import (
    EvaluationDays,
    LogHabits,
    LogTable,
    PairDays,
    WarmPairs,
    count_by_day,
    find_bulk_end,
    find_habits,
    select_positive,
    to_date,
)
from dssm_assets.extras.starter.starter_settings import Recipe, choose_recipe

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


DAY = 86_400_000
FIRST = dt.date(1970, 1, 1)
Row = tuple[str, int, float]
"""User, item, day with its fraction."""


def _database(rows: list[Row] | list[tuple[int, int, int]]) -> duckdb.DuckDBPyConnection:
    users, items, times = (np.array(column) for column in zip(*rows, strict=True))
    acts = pa.table(
        {"u": users.astype(str), "i": items, "t": (times * DAY).astype(np.int64), "d": np.floor(times).astype(np.int32)}
    )
    db = duckdb.connect()
    db.register("acts", acts)
    return db


def _habits(rows: list[Row]) -> LogHabits:
    found = find_habits(_database(rows))
    assert found is not None
    return found


def test_facts_by_hand() -> None:
    rows = [
        ("a", 1, 0.5),
        ("a", 2, 0.6),
        ("a", 1, 3.5),
        ("b", 1, 3.6),
        ("b", 1, 3.7),
        ("b", 2, 9.5),
        ("a", 7, 9.6),
        ("c", 7, 9.7),
    ]
    found = _habits(rows)
    assert found.events_per_day == 3  # days with 2, 3 and 3 events
    assert (found.history_events, found.long_history_events) == (3, 3)  # users a and b have 3, c has 1: median 3, 90% 3
    # Known: a on day 3, b and a on day 9. Repeated: a takes 1 again on day 3; b takes it twice on one day, which is no repeat.
    assert found.known_frac == pytest.approx(3 / 8)
    assert found.repeat_frac == pytest.approx(1 / 8)
    # New to their users: 1 and 2 of a and on day 3 both of b (one day) on the first two of the three days, then all three.
    assert found.new_per_day == pytest.approx(7 / 3)
    assert found.item_spread_days is None, "too few meetings"


def test_spread_of_first_meetings_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_table, "MIN_MEETINGS", 2)
    # Item 1 is met on days 0 and 1, item 2 on days 3 and 5. That a meets item 1 again counts for neither.
    found = _habits([("a", 1, 0.0), ("b", 1, 1.0), ("a", 2, 3.0), ("b", 2, 5.0), ("a", 1, 0.5), ("a", 1, 9.0)])
    # Around the items' means: (.25 + .25 + 1 + 1) / (4 meetings - 2 items). Around 2.25: (5.0625 + 1.5625 + .5625 + 7.5625) / 3.
    assert found.item_spread_days == pytest.approx((2.5 / 2) ** 0.5)
    assert found.spread_days == pytest.approx((14.75 / 3) ** 0.5)


def _generated(kind: Recipe, days: int) -> list[Row]:
    """Returns a log of 300 events a day: item k of a shop or a film is the more popular the smaller k; an article halves in 18 hours."""
    rng = np.random.default_rng(days)
    times = np.sort(rng.uniform(0, days, (30 if kind is Recipe.SPARSE else 300) * days))
    popularity = 1 / np.arange(10, 410)
    items = rng.choice(400, len(times), p=popularity / popularity.sum())
    users = rng.integers(0, 12 * days, len(times))
    if kind is Recipe.NEWS:
        age_days = np.minimum(rng.exponential(0.75 / np.log(2), len(times)), times)
        items = np.floor((times - age_days) * 20).astype(int)  # 20 articles a day
    if kind is Recipe.RETAIL:
        items = users % 40 * 10 + rng.integers(0, 10, len(times))  # a customer's ten products
    rows = list(zip(map(str, users.tolist()), items.tolist(), times.tolist(), strict=True))
    return rows if kind is Recipe.RETAIL else list({row[:2]: row for row in reversed(rows)}.values())


@pytest.mark.parametrize("days", [3, 5, 14, 45])
@pytest.mark.parametrize("kind", list(Recipe))
def test_generated_logs_are_told_apart(kind: Recipe, days: int) -> None:
    found = _habits(_generated(kind, days))
    assert choose_recipe(found)[0] is kind, choose_recipe(found)


def test_only_the_last_month_counts_for_fractions() -> None:
    old = [("a", 1, float(day)) for day in range(10)]  # repeats every day
    found = _habits([*old, ("b", 2, 99.0), ("b", 3, 100.0)])
    assert (found.repeat_frac, found.known_frac, found.events_per_day) == (0.0, 0.5, 1.0)


@pytest.mark.parametrize(
    ("counts", "last"),
    [
        ([1000] * 16 + [16] * 28, 15),
        ([1000] * 16 + [0] * 20 + [20] * 3, 15),
        ([1000] * 30 + [0] * 20 + [1000] * 3, 52),
        ([1000] * 60 + [150] * 60, 119),  # a slow time has a seventh
        ([20] * 28 + [1000] * 16, 43),
        ([2**week for week in range(12) for _ in range(7)], 83),
        (([0] * 6 + [500]) * 8, 55),
        ([100] * 40 + [90_000] + [100] * 50, 90),  # a sale
        ([90_000] + [100] * 50, 50),  # older events under the date of an import
        ([9, 1], 1),
    ],
    ids=["tail", "after a gap", "gap", "slow", "head", "growing", "weekly", "sale", "import", "two days"],
)
def test_bulk_ends_before_a_thin_tail(counts: list[int], last: int) -> None:
    days = np.flatnonzero(counts)
    assert find_bulk_end(days, np.array(counts)[days]) == last


def _pairs(rows: list[tuple[int, int, int]], span: int = 1) -> WarmPairs:
    return PairDays.read(_database(rows)).count_warm(span)


def test_shortest_windows_by_hand() -> None:
    # Users 0 and 1 take item 0 on day 0; 0 takes it again, twice, on day 5, and 1 on day 9.
    found = _pairs([(0, 0, 0), (1, 0, 0), (0, 0, 5), (0, 0, 5), (1, 0, 9)])
    assert [len(count_by_day(found.pairs, window)[0]) for window in (4, 5, 8, 9)] == [0, 1, 1, 2]
    assert [count_by_day(found.users, window)[1].tolist() for window in (4, 5, 9)] == [[], [1], [1, 1]]
    assert found.evaluation_days(5, FIRST, to_date(9), min_pairs=1).days == (5,)
    days = found.evaluation_days(9, FIRST, to_date(9), min_pairs=1)
    assert (
        days.sentence
        == "1 of 1 after a window of 9 days have 1 warm pairs or more, the first is 1970-01-10, the last 1970-01-10; no day has the "
        "100 pairs by 20 users that a verdict of the gate needs, so every bundle would be published"
    )
    assert (
        found.evaluation_days(9, FIRST, to_date(9)).sentence == "none of 1 after a window of 9 days has 30 warm pairs or more"
    )
    # A window of 10 days ends after the log.
    assert found.evaluation_days(10, FIRST, to_date(9), min_pairs=1).calendar_days == 0


def test_pairs_of_a_span_are_known_before_its_first_day_and_count_once() -> None:
    # User 0 takes item 0 on the days 0, 5 and 6. The span of days 4 and 5 needs a window of 4 days, that of 5 and 6 one of 5, and the
    # pair counts once; that of 6 and 7 needs one day.
    rows = [(0, 0, 0), (0, 0, 5), (0, 0, 6)]
    found = _pairs(rows, span=2)
    assert found.pairs.tolist() == [[4, 4, 1], [5, 5, 1], [6, 1, 1]]
    assert found.evaluation_days(4, FIRST, to_date(6), min_pairs=1).days == (4,)
    assert found.evaluation_days(4, FIRST, to_date(7), min_pairs=1).days == (4, 6)
    # User 1 begins on day 5 and comes back on day 6: warm on day 6, but not in the span that begins with day 5.
    assert [count_by_day(_pairs([(0, 0, 0), (1, 0, 5), (1, 0, 6)], span).pairs, 9)[0].tolist() for span in (1, 2)] == [[6], [6]]
    # On each of two days user 0 takes an item that day 0 knows: two pairs, one user. From day 2 on, item 1 needs two days.
    found = _pairs([(0, 0, 0), (0, 1, 0), (0, 0, 1), (0, 1, 2)], span=2)
    assert [count_by_day(rows, 1)[1].tolist() for rows in (found.pairs, found.users)] == [[2], [1]]
    assert found.evaluation_days(1, FIRST, to_date(2), min_pairs=2).days == (1,)


def test_a_first_result_is_of_the_last_day_that_the_gate_judges_and_that_is_over() -> None:
    """Day 0 makes 30 users and 12 items known; users take items anew on each later day, 4 by 30, but few on some days."""

    def days_of(*users: int) -> EvaluationDays:
        known = [(user, user % 12, 0) for user in range(30)]
        taken = [
            (user, (user + item) % 12, day) for day, most in enumerate(users, 1) for user in range(most) for item in range(4)
        ]
        gate = Gate(min_pairs=100)
        return _pairs([*known, *taken]).evaluation_days(1, FIRST, to_date(len(users)), gate)

    assert (days_of(30, 30, 30).judged, days_of(30, 30, 30).shown) == ((1, 2, 3), to_date(3))
    assert days_of(30, 30, 30).sentence.endswith("; the gate can judge 3, the last is 1970-01-04 (100 pairs by 20 users)")
    assert (days_of(30, 30, 10).days, days_of(30, 30, 10).judged, days_of(30, 30, 10).shown) == ((1, 2, 3), (1, 2), to_date(2))
    assert (days_of(10, 10, 10).judged, days_of(10, 10, 10).shown) == ((), to_date(3)), "no verdict on any day"


def test_a_day_that_is_not_over_is_no_first_result() -> None:
    rows = [(user, user % 12, 0) for user in range(90)]
    rows += [
        (user, (user + item) % 12, day) for day in range(1, 5) for user in range(90 if day < 4 else 30) for item in range(4)
    ]
    found = _pairs(rows).evaluation_days(1, FIRST, to_date(4), Gate(min_pairs=100))
    assert (found.judged, found.shown) == ((1, 2, 3, 4), to_date(3))
    assert found.sentence.endswith("; 1970-01-05 has less than half of their pairs, so a first result is of 1970-01-04")


@pytest.mark.parametrize("span", [1, 2, 9])
@pytest.mark.parametrize("window", [1, 3, 7, 30])
def test_any_window_and_span_is_as_counted_pair_by_pair(window: int, span: int) -> None:
    rng = np.random.default_rng(3)
    rows = list(zip(*(rng.integers(0, most, 300).tolist() for most in (30, 60, 40)), strict=True))
    pairs: dict[int, int] = {}
    users: dict[int, int] = {}
    for day in range(1 - span, 40):
        known = [row for row in rows if day - window <= row[2] < day]
        warm: dict[tuple[int, int], int] = {}
        for user, item, at in sorted(rows, key=lambda row: row[2]):
            if day <= at < day + span and any(row[0] == user for row in known) and any(row[1] == item for row in known):
                warm.setdefault((user, item), at)
        pairs |= {day: len(warm)} if warm else {}
        users |= {day: len({user for user, _ in warm})} if warm else {}
    found = _pairs(rows, span)
    for table, expected in ((found.pairs, pairs), (found.users, users)):
        days, counts = count_by_day(table, window)
        assert dict(zip(days.tolist(), counts.tolist(), strict=True)) == expected
    assert sum(pairs.values()) > 0
