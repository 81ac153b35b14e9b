"""How users and items of a log behave: lengths of histories, repetition, turnover, how fast popularity ages, which days can be evaluated.

Facts about habits are those of the last `RECENT_DAYS` days that have events, for settings are chosen for the days to come.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dssm_assets.extras.starter.log_table import to_date, to_number

MIN_PAIRS: Final = 30
"""Warm pairs that a day needs for a figure that says something."""
RECENT_DAYS: Final = 30
MIN_MEETINGS: Final = 100
"""Users who met an item after its first one, over all items."""
SCORED_DAYS: Final = 3
"""Last days that have events, on which half-lives of popularity are compared."""
LIST_LENGTH: Final = 50
HALF_LIVES: Final = (0.25, 1.0, 3.0, 7.0, 30.0, 90.0)
_ENDLESS: Final = 1e6  # days: no decay

_Ints = npt.NDArray[np.int64]

_WARM: Final = """
CREATE OR REPLACE TEMP TABLE warm AS
WITH pairs AS (SELECT DISTINCT u, i, d FROM acts),
users AS (SELECT u, d, d - lag(d) OVER (PARTITION BY u ORDER BY d) AS gap FROM (SELECT DISTINCT u, d FROM pairs)),
items AS (SELECT i, d, d - lag(d) OVER (PARTITION BY i ORDER BY d) AS gap FROM (SELECT DISTINCT i, d FROM pairs))
SELECT u, d, greatest(users.gap, items.gap) AS needed FROM pairs JOIN users USING (u, d) JOIN items USING (i, d)
WHERE users.gap IS NOT NULL AND items.gap IS NOT NULL
"""
_SHARES: Final = """
SELECT avg(is_known::INT) FILTER (d >= $recent), avg(is_repeat::INT) FILTER (d >= $recent), count(*) FILTER (NOT is_repeat AND d >= $last)
FROM (SELECT d, min(d) OVER (PARTITION BY u) < d AS is_known, min(d) OVER (PARTITION BY u, i) < d AS is_repeat FROM acts)
"""
_LENGTHS: Final = (
    "SELECT quantile_cont(n, [0.5, 0.9]) FROM (SELECT count(*) AS n FROM acts GROUP BY u HAVING max(d) >= $recent)"
)
_SPREAD: Final = """
SELECT count(*) - count(DISTINCT i), sum((x - mean) ** 2), coalesce(stddev_samp(x), 0) FROM (
    SELECT i, x, avg(x) OVER (PARTITION BY i) AS mean FROM (
        SELECT i, (min(t) - $recent::BIGINT * 86400000) / 86400000 AS x FROM acts WHERE d >= $recent GROUP BY u, i))
"""
_HALF_LIVES: Final = """
WITH scored AS (SELECT d, min(t) AS begin FROM acts WHERE d >= $last AND d > $first GROUP BY d),
truth AS (SELECT d, i, count(*) AS n FROM acts GROUP BY d, i),
scores AS (
    SELECT scored.d, half_life, i, sum(2.0 ** ((t - begin) / 86400000 / half_life)) AS score
    FROM acts JOIN scored ON acts.d < scored.d CROSS JOIN (SELECT unnest($half_lives) AS half_life) GROUP BY ALL),
lists AS (SELECT * FROM scores QUALIFY row_number() OVER (PARTITION BY d, half_life ORDER BY score DESC, i) <= $length)
SELECT half_life FROM lists JOIN truth USING (d, i) GROUP BY half_life ORDER BY sum(n) DESC, half_life DESC LIMIT 1
"""


@dataclass(frozen=True)
class EvaluationDays:
    """The days with `min_pairs` warm pairs, since 1970-01-01, of the days of the calendar with a whole window before them."""

    days: tuple[int, ...]
    window: int
    calendar_days: int
    min_pairs: int

    @property
    def last(self) -> dt.date | None:
        return to_date(self.days[-1]) if self.days else None

    @property
    def sentence(self) -> str:
        of_all = f"of {self.calendar_days:,} after a window of {self.window} days"
        if not self.days:
            return f"none {of_all} has {self.min_pairs} warm pairs or more"
        ends = f"the first is {to_date(self.days[0])}, the last {self.last}"
        return f"{len(self.days):,} {of_all} have {self.min_pairs} warm pairs or more, {ends}"


@dataclass(frozen=True)
class WarmPairs:
    """Pairs of user and item by day, and by the shortest window that knows both.

    A pair is warm, as in the evaluation, if its user and its item have a positive event in the window before its day.

    Attributes:
        pairs: rows of day (since 1970-01-01), days of the shortest window, count [N, 3].
        users: the same of users, by the shortest window that makes one of their pairs warm.
    """

    pairs: _Ints
    users: _Ints

    @classmethod
    def count(cls, db: Any) -> WarmPairs:
        """Returns the pairs of a table `acts` of users u, items i and days d."""
        db.execute(_WARM)
        of_users = "(SELECT d, min(needed) AS needed FROM warm GROUP BY u, d)"
        queries = [f"SELECT d, needed, count(*) FROM {table} GROUP BY 1, 2" for table in ("warm", of_users)]
        return cls(*(np.array(db.execute(query).fetchall(), np.int64).reshape(-1, 3) for query in queries))

    def evaluation_days(
        self, window: int, first: dt.date, last: dt.date, min_pairs: int = MIN_PAIRS, span: int = 1
    ) -> EvaluationDays:
        """Returns the days with at least `min_pairs` that have a whole window in the calendar, from `first` to `last`.

        The pairs of `span` days count for the first of them, each by the window before itself.
        """
        begin, end = to_number(first) + window, to_number(last) - span + 1
        days, counts = count_by_day(self.pairs, window)
        sums, starts = np.append(0, np.cumsum(counts)), np.arange(begin, max(begin, end + 1))
        counts = sums[np.searchsorted(days, starts + span)] - sums[np.searchsorted(days, starts)]
        return EvaluationDays(tuple(starts[counts >= min_pairs].tolist()), window, max(0, end + 1 - begin), min_pairs)


def count_by_day(rows: _Ints, window: int) -> tuple[_Ints, _Ints]:
    """Returns the days of `WarmPairs.pairs` or `.users` that a window makes warm, ascending, and the counts."""
    rows = rows[rows[:, 1] <= window]
    days, place = np.unique(rows[:, 0], return_inverse=True)
    return days, np.bincount(place, rows[:, 2], len(days)).astype(np.int64)


@dataclass(frozen=True)
class LogHabits:
    """Facts of the positive events; fractions are of the recent days' events.

    Attributes:
        events_per_day: median over the recent days that have events.
        history_events: half of the recently active users have more events.
        long_history_events: a tenth of them has more.
        known_frac: events whose user has an event on an earlier day.
        repeat_frac: events whose user interacted with the same item on an earlier day.
        item_spread_days: standard deviation of the times at which users first met an item around the item's mean; unbiased, so that many
            items with few meetings do not look short-lived. None: fewer than `MIN_MEETINGS` can tell.
        spread_days: the same around the mean of all items, which is alike for items that are always there.
        new_per_day: mean over the last days of events on items that their users had not interacted with on an earlier day.
        half_life_days: of the recent popularity whose 50 first items hold most events of the last days; None: counts without decay.
        days: that have events, ascending, in days since 1970-01-01; `day_events` has the events of each.
    """

    events_per_day: float
    history_events: int
    long_history_events: int
    known_frac: float
    repeat_frac: float
    item_spread_days: float | None
    spread_days: float
    new_per_day: float
    half_life_days: float | None
    days: _Ints
    day_events: _Ints
    pairs: WarmPairs


def select_positive(db: Any, events: Sequence[str]) -> int:
    """Makes the table `acts` of the events of a log that count: users u, items i, times t in milliseconds, days d; returns its rows."""
    whole = "user_id IS NOT NULL AND item_id IS NOT NULL AND time_ms IS NOT NULL AND list_contains($events, event)"
    columns = "hash(user_id) AS u, hash(item_id) AS i, time_ms AS t, day AS d"
    db.execute(f"CREATE OR REPLACE TEMP TABLE acts AS SELECT {columns} FROM log WHERE {whole}", {"events": list(events)})
    return int(db.execute("SELECT count(*) FROM acts").fetchall()[0][0])


def find_habits(db: Any) -> LogHabits | None:
    """Returns the facts of the table `acts`; None if it has no rows."""
    counts = np.array(db.execute("SELECT d, count(*) FROM acts GROUP BY d ORDER BY d").fetchall(), np.int64).reshape(-1, 2)
    if not len(counts):
        return None
    days, day_events = counts.T
    recent = {"recent": int(days[days > days[-1] - RECENT_DAYS][0])}
    last_days = days[-SCORED_DAYS:]
    known, repeat, new = db.execute(_SHARES, recent | {"last": int(last_days[0])}).fetchall()[0]
    ((half, most),) = db.execute(_LENGTHS, recent).fetchall()[0]
    meetings, squares, spread = db.execute(_SPREAD, recent).fetchall()[0]
    asked = {"last": int(last_days[0]), "first": int(days[0]), "half_lives": [*HALF_LIVES, _ENDLESS], "length": LIST_LENGTH}
    best = db.execute(_HALF_LIVES, asked).fetchall()
    return LogHabits(
        events_per_day=float(np.median(day_events[days >= recent["recent"]])),
        history_events=int(half),
        long_history_events=int(most),
        known_frac=known,
        repeat_frac=repeat,
        item_spread_days=float(squares / meetings) ** 0.5 if meetings >= MIN_MEETINGS else None,
        spread_days=spread,
        new_per_day=new / len(last_days),
        half_life_days=best[0][0] if best and best[0][0] < _ENDLESS else None,
        days=days,
        day_events=day_events,
        pairs=WarmPairs.count(db),
    )
