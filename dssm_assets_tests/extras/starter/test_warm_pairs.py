"""Warm pairs of small logs by hand, and that every window is as counted directly."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pytest

from dssm_assets.extras.starter.warm_pairs import WarmPairs, to_date, to_number

FIRST = dt.date(1970, 1, 1)


def _pairs(rows: list[tuple[int, int, int]], weight: int = 1) -> WarmPairs:
    user, item, day = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    return WarmPairs.from_events(user, item, day, weight)


def test_shortest_windows_by_hand() -> None:
    # Users 0 and 1 take item 0 on day 0; 0 takes it again, twice, on day 5, and 1 on day 9.
    found = _pairs([(0, 0, 0), (1, 0, 0), (0, 0, 5), (0, 0, 5), (1, 0, 9)])
    assert [len(found.count_by_day(window)[0]) for window in (4, 5, 8, 9)] == [0, 1, 1, 2]
    assert [found.count_users_by_day(window)[1].tolist() for window in (4, 5, 9)] == [[], [1], [1, 1]]
    assert found.evaluation_days(5, FIRST, to_date(9), min_pairs=1).days == (5,)
    assert found.evaluation_days(9, FIRST, to_date(9), min_pairs=1).days == (9,)
    # A window of 10 days ends after the log.
    assert found.evaluation_days(10, FIRST, to_date(9), min_pairs=1).calendar_days == 0


def test_pairs_of_a_span_count_for_its_first_day() -> None:
    # One pair is warm on each of the days 1 to 4. With three days of truth, day 1 has those of 1 to 3, day 2 those of 2 to 4.
    rows = [(0, 0, day) for day in range(5)]
    found = _pairs(rows).evaluation_days(1, FIRST, to_date(4), min_pairs=3, span=3)
    assert (found.days, found.calendar_days) == ((1, 2), 2)
    # The last day with a whole span in the calendar is day 2; no day has four pairs.
    assert _pairs(rows).evaluation_days(1, FIRST, to_date(4), min_pairs=4, span=3).days == ()
    assert _pairs(rows).evaluation_days(1, FIRST, to_date(4), min_pairs=4, span=4).days == (1,)


def test_pairs_of_a_sample_stand_for_others() -> None:
    rows = [(0, 0, 0), (0, 0, 1)]
    assert _pairs(rows, weight=4).evaluation_days(1, FIRST, to_date(1), min_pairs=4).days == (1,)
    assert _pairs(rows, weight=1).evaluation_days(1, FIRST, to_date(1), min_pairs=4).days == ()


def test_sentence_names_the_first_and_the_last() -> None:
    rows = [(0, 0, day) for day in range(4)]
    found = _pairs(rows).evaluation_days(1, FIRST, to_date(3), min_pairs=1)
    assert found.sentence == (
        "3 of 3 after a window of 1 days have 1 warm pairs or more, the first is 1970-01-02, the last 1970-01-04"
    )
    assert _pairs(rows).evaluation_days(1, FIRST, to_date(3)).sentence.startswith("none of 3")


@pytest.mark.parametrize("window", [1, 3, 7, 30])
def test_any_window_is_as_counted_pair_by_pair(window: int) -> None:
    rng = np.random.default_rng(3)
    rows = list(zip(*(rng.integers(0, most, 300).tolist() for most in (12, 9, 40)), strict=True))
    expected: dict[int, int] = {}
    for user, item, day in set(rows):
        before = [row for row in rows if day - window <= row[2] < day]
        if any(row[0] == user for row in before) and any(row[1] == item for row in before):
            expected[day] = expected.get(day, 0) + 1
    days, counts = _pairs(rows).count_by_day(window)
    assert dict(zip(days.tolist(), counts.tolist(), strict=True)) == expected
    assert sum(expected.values()) == sum(counts) > sum(_pairs(rows).count_users_by_day(window)[1]) > 0


def test_days_and_dates_are_inverse() -> None:
    assert to_number(dt.date(1970, 1, 2)) == 1
    assert to_date(to_number(dt.date(2024, 2, 29))) == dt.date(2024, 2, 29)
