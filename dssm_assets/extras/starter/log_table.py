"""Reads a behavior log once, in blocks, into a temporary database. Measures counts, faults and the users' habits.

Habits are measured on the last `RECENT_DAYS` days (without a thin tail), because settings are chosen for days to come.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dssm_assets.core.columns import EVENT, ITEM_ID, USER_ID
from dssm_assets.core.config.evaluation import Gate
from dssm_assets.core.config.pipeline import BehaviorTable, Events, Layout
from dssm_assets.core.errors import Fault, SchemaError
from dssm_assets.core.sources.canonical_tables import EVENT_TIME
from dssm_assets.core.sources.convert import to_ids, to_text, to_values
from dssm_assets.core.sources.event_time import dates_of, to_event_time_ms
from dssm_assets.storage.local_files import ScratchFolder
from dssm_assets.storage.sources.source_columns import PlannedPiece, plan_pieces
from dssm_assets.storage.sources.source_files import open_source

_SAMPLED_ROWS: Final = 200_000
_LEAST_PAIRS: Final = 100
_FOLLOWS_FROM: Final = 0.5
_STRAYS: Final = 0.1
MIN_PAIRS: Final = 30
"""A day needs so many warm pairs for a meaningful figure."""
_GATE: Final = Gate()
_NEIGHBORS: Final = 7
"""A last day is compared with so many days before it, to see whether it is complete."""
RECENT_DAYS: Final = 30
MIN_MEETINGS: Final = 100
"""The spread is measured only with so many meetings. Every user of an item after its first user counts as a meeting."""
_LAST_DAYS: Final = 3
_USUAL, _THIN = 0.9, 0.1  # see `find_bulk_end`

_NEVER: Final = -1_000_000_000
"""A day before all days."""

_Ints = npt.NDArray[np.int64]
_Days = npt.NDArray[np.int32]

_PAIR_DAYS: Final = """
SELECT u, i, d::INTEGER AS d, lag(d::INTEGER, 1, $never) OVER (PARTITION BY u, i ORDER BY d) AS before
FROM (SELECT DISTINCT u, i, d FROM acts) ORDER BY d, u
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
_DELETE_STRAYS: Final = """
WITH counts AS (SELECT day, count(*) AS n FROM log WHERE day IS NOT NULL GROUP BY day),
days AS (SELECT day, lead(day) OVER (ORDER BY day) - day AS gap, sum(n) OVER (ORDER BY day) / sum(n) OVER () AS share FROM counts)
DELETE FROM log WHERE day <= (SELECT max(day) FROM days WHERE gap > 366 AND share <= $most)
OR day >= $ahead AND (SELECT max(share) FROM days WHERE day < $ahead) >= 1 - $most
"""


def plan_log(table: BehaviorTable, days: Iterable[str]) -> Iterator[list[PlannedPiece]]:
    """Yields groups of a log's files with a common schema: all files at once, or day folder by day folder."""
    source = open_source(table, "behavior_table")
    if table.layout is not Layout.DS_FOLDERS:
        yield plan_pieces(source.pieces())
        return
    folders = source.days()
    for day in days:
        if day in folders:
            yield plan_pieces(source.pieces(folders[day][0]))


class LogTable:
    """The rows of a log, in the table `log` of a temporary database.

    Its columns are user_id, item_id and event (text), time_ms, day (since 1970-01-01), and further columns as text. A value that
    cannot be read is stored as null, and adds a fault for its column.
    """

    def __init__(self, config: BehaviorTable, timezone: str, others: Sequence[str] = ()) -> None:
        """Makes an empty table; `others` are further columns to store."""
        self._config, self._zone, self._others = config, timezone, others
        self._folder = ScratchFolder("log")
        self.db = duckdb.connect(str(self._folder.path / "log.duckdb"))
        named = "".join(f", other_{number} VARCHAR" for number in range(len(others)))
        self.db.execute(
            f"CREATE TEMP TABLE log (user_id VARCHAR, item_id VARCHAR, event VARCHAR, time_ms BIGINT, day INTEGER{named})"
        )
        self._faults: dict[str, Fault] = {}

    def observe(self, block: pa.Table) -> None:
        """Adds a block with our column names."""
        config, zone = self._config, self._zone

        def to_times(values: Any, where: str) -> pa.Array:
            return to_event_time_ms(values, unit=config.time_unit, timezone=zone, where=where, time_format=config.time_format)

        times = self._read(block, EVENT_TIME, to_times)
        constant = pa.repeat(config.constant_event, block.num_rows) if config.constant_event else None
        columns = [
            self._read(block, USER_ID, to_ids),
            self._read(block, ITEM_ID, to_ids),
            self._read(block, EVENT, to_text) if constant is None else constant,
            times,
            None if times is None else dates_of(times, zone).cast(pa.int32()),
            *(self._read(block, name, to_text) for name in self._others),
        ]
        for name in config.context_columns:
            self._read(block, name, to_text)
        for name in config.value_columns:
            self._read(block, name, lambda values, where: to_values(values, where, config.decimal_mark))
        arrays = [pa.nulls(block.num_rows) if values is None else values for values in columns]
        self.db.register("block", pa.table(arrays, [f"column_{number}" for number in range(len(arrays))]))
        self.db.execute("INSERT INTO log SELECT * FROM block")

    def drop_strays(self, today: dt.date) -> int:
        """Removes rows with implausible days, if they are at most a tenth of all rows. Returns how many it removed.

        Days after today, and first days a year or more before all others, are implausible: 9999-12-31 often means a missing time.
        """
        asked = {"ahead": to_number(today) + 2, "most": _STRAYS}
        return int(self.db.execute(_DELETE_STRAYS, asked).fetchall()[0][0])

    @property
    def rows(self) -> int:
        return int(self._first("SELECT count(*) FROM log")[0])

    def count_events(self) -> dict[str, int]:
        query = "SELECT event, count(*) AS n FROM log WHERE event IS NOT NULL GROUP BY event ORDER BY n DESC, event"
        return dict(self.db.execute(query).fetchall())

    def count_days(self) -> dict[str, int]:
        """Returns day (YYYY-MM-DD) -> rows, ascending."""
        counts = self.db.execute("SELECT day, count(*) FROM log WHERE day IS NOT NULL GROUP BY 1 ORDER BY 1").fetchall()
        return {to_date(day).isoformat(): count for day, count in counts}

    def distinct_ids(self, key: str) -> pa.Array:
        """Returns the distinct ids of a side as text, ascending."""
        query = f"SELECT DISTINCT {key} FROM log WHERE {key} IS NOT NULL ORDER BY 1"
        return self.db.sql(query).to_arrow_table().column(0).combine_chunks()

    def first_user(self, start: dt.date) -> str:
        """Returns the user of the first positive event from a day on, of several the first by text; the table `acts` must have one."""
        first = f"SELECT u FROM acts WHERE t = (SELECT min(t) FROM acts WHERE d >= {to_number(start)})"
        return str(self._first(f"SELECT min(user_id) FROM log WHERE hash(user_id) IN ({first})")[0])

    def faults(self, events: Events) -> list[Fault]:
        faults = list(self._faults.values())
        rows, counts = self.rows, self.count_events()
        for column, name in ((USER_ID, USER_ID), (ITEM_ID, ITEM_ID), (EVENT, EVENT), ("time_ms", EVENT_TIME)):
            (missing,) = self._first(f"SELECT count(*) - count({column}) FROM log")
            if missing and _where(name) not in self._faults:
                remedy = "drop or fix those rows in the source"
                faults.append(Fault(_where(name), "a value in every row", f"{missing:,} missing in {rows:,} rows", remedy))
        if unknown := sorted(set(counts) - set(events.funnel)):
            got = ", ".join(f"{name!r} ({counts[name]:,} rows)" for name in unknown[:20])
            remedy = "add them to events.funnel, or drop those rows in the source"
            faults.append(Fault(_where(EVENT), f"events of the funnel {events.funnel}", got, remedy))
        expected = f"an event of the log: {', '.join(sorted(counts)) or 'none'}"
        return faults + [
            Fault(f"key events.funnel, {name}", expected, "no row", "correct its spelling, or remove it")
            for name in events.funnel
            if rows and name not in counts
        ]

    def later_frac(self, key: str, ids: Any, times_ms: Any) -> float:
        """Returns the fraction of ids whose time lies on a later day than their first event, among ids with both.

        A time of registration lies before the first event. A column such as "last visit" knows the future of every earlier day.
        """
        days = dates_of(times_ms, self._zone).cast(pa.int32())
        self.db.register("entities", pa.table({"id": ids.cast(pa.string()), "day": days}))
        first = f"SELECT {key} AS id, min(day) AS day FROM log GROUP BY {key}"
        (later,) = self._first(f"SELECT avg((entities.day > first.day)::INT) FROM entities JOIN ({first}) AS first USING (id)")
        return float(later or 0.0)

    def columns_of_items(self) -> frozenset[str]:
        """Returns the further columns that the item determines. As context of a request they would reveal the item to find.

        Let s be how often two successive rows of an item share a value, and c how often any two rows do. The item determines the
        column if (s - c) / (1 - c) is at least .5 (Cohen's kappa), over at least 100 pairs of rows of an item.
        """
        following = set()
        for number, name in enumerate(self._others):
            first = f"SELECT rowid AS number, item_id, other_{number} AS value FROM log WHERE rowid < {_SAMPLED_ROWS}"
            same = f"SELECT value = lag(value) OVER (PARTITION BY item_id ORDER BY number) AS same FROM ({first})"
            pairs, shared = self._first(f"SELECT count(same), avg(same::INT) FROM ({same})")
            counts = f"SELECT count(*) AS n FROM ({first}) WHERE value IS NOT NULL GROUP BY value"
            values, chance = self._first(f"SELECT count(*), sum(n * n) / sum(n) ** 2 FROM ({counts})")
            if pairs >= _LEAST_PAIRS and values > 1 and (shared - chance) / (1 - chance) >= _FOLLOWS_FROM:
                following.add(name)
        return frozenset(following)

    def _first(self, query: str) -> tuple[Any, ...]:
        row: tuple[Any, ...] = self.db.execute(query).fetchall()[0]
        return row

    def _read(self, block: pa.Table, name: str, convert: Callable[[Any, str], pa.Array]) -> pa.Array | None:
        """Returns a converted column; None if it is faulty, and the fault is recorded once per column."""
        if name not in block.column_names:
            return None
        try:
            return convert(block.column(name), _where(name))
        except SchemaError as error:
            for fault in error.faults:
                self._faults.setdefault(fault.where, fault)
            return None


def to_date(day: int) -> dt.date:
    """Converts a day since 1970-01-01 to a date, limited to the years 1 to 9999, since a zone may lead out of them."""
    return dt.date.fromordinal(min(dt.date.max.toordinal(), max(1, int(day) + dt.date(1970, 1, 1).toordinal())))


def to_number(date: dt.date) -> int:
    return (date - dt.date(1970, 1, 1)).days


def _where(column: str) -> str:
    return f"table behavior_table, column {column}"


@dataclass(frozen=True)
class EvaluationDays:
    """The days (since 1970-01-01) that can be evaluated: they have `min_pairs` warm pairs and a whole window before them.

    Attributes:
        judged: the days with enough pairs and users for the gate.
        shown: the day of a first result, the last judged day (or the last day, if none is judged). If it has less than half as
            many pairs as the days before it, it is probably incomplete, and the day before it is chosen.
    """

    days: tuple[int, ...]
    judged: tuple[int, ...]
    shown: dt.date | None
    window: int
    calendar_days: int
    min_pairs: int
    gate: Gate

    @property
    def sentence(self) -> str:
        of_all = f"of {self.calendar_days:,} after a window of {self.window} days"
        if not self.days:
            return f"none {of_all} has {self.min_pairs} warm pairs or more"
        ends = f"the first is {to_date(self.days[0])}, the last {to_date(self.days[-1])}"
        enough = f"{self.gate.min_pairs:,} pairs by {self.gate.min_users:,} users"
        verdict = f"no day has the {enough} that a verdict of the gate needs, so every bundle would be published"
        if self.judged:
            verdict = f"the gate can judge {len(self.judged):,}, the last is {to_date(self.judged[-1])} ({enough})"
        last = to_date((self.judged or self.days)[-1])
        part = "" if self.shown == last else f"; {last} has less than half of their pairs, so a first result is of {self.shown}"
        return f"{len(self.days):,} {of_all} have {self.min_pairs} warm pairs or more, {ends}; {verdict}{part}"


@dataclass(frozen=True)
class WarmPairs:
    """Counts of (user, item) pairs in spans of days, by the shortest window that makes the pairs warm.

    A pair is warm, as in the evaluation, if its user and its item have a positive event in the window before the first day
    of the span.

    Attributes:
        pairs: rows (first day of the span since 1970-01-01, days of the shortest window, number of pairs) [N, 3].
        users: the same rows with the number of users, by the shortest window that makes one of their pairs warm.
        span: number of days evaluated together. A pair, or a user, counts once per span.
    """

    pairs: _Ints
    users: _Ints
    span: int = 1

    def evaluation_days(
        self, window: int, first: dt.date, last: dt.date, gate: Gate = _GATE, min_pairs: int = MIN_PAIRS
    ) -> EvaluationDays:
        """Returns the first days of spans with at least `min_pairs` and a whole window in the calendar, from `first` to `last`."""
        begin, end = to_number(first) + window, to_number(last) - self.span + 1
        days, counts = count_by_day(self.pairs, window)
        is_chosen = (days >= begin) & (days <= end) & (counts >= min_pairs)
        of_users = dict(zip(*(part.tolist() for part in count_by_day(self.users, window)), strict=True))
        users = np.array([of_users.get(day, 0) for day in days.tolist()], np.int64)
        is_judged = is_chosen & (counts >= gate.min_pairs) & (users >= gate.min_users)
        candidates = np.flatnonzero(is_judged if is_judged.any() else is_chosen)[-_NEIGHBORS - 1 :]
        is_part = len(candidates) > 1 and 2 * counts[candidates[-1]] < np.median(counts[candidates[:-1]])
        shown = to_date(days[candidates[-2 if is_part else -1]]) if len(candidates) else None
        chosen, judged = (tuple(days[mask].tolist()) for mask in (is_chosen, is_judged))
        return EvaluationDays(chosen, judged, shown, window, max(0, end + 1 - begin), min_pairs, gate)

    def mean_of_last_days(self, window: int, first: dt.date, last: dt.date, at_most: int) -> tuple[float, float]:
        """Returns the mean pairs and users of the last of these spans, empty ones included."""
        begin, end = to_number(first) + window, to_number(last) - self.span + 1
        last_days = max(1, min(at_most, end + 1 - begin))
        tables = (count_by_day(rows[rows[:, 0] <= end], window) for rows in (self.pairs, self.users))
        pairs, users = (float(counts[days > days[-1:] - last_days].sum()) / last_days for days, counts in tables)
        return pairs, users


def count_by_day(rows: _Ints, window: int) -> tuple[_Ints, _Ints]:
    """Counts `WarmPairs.pairs` or `.users` for one window length: returns the days, ascending, and the counts."""
    rows = rows[rows[:, 1] <= window]
    days, place = np.unique(rows[:, 0], return_inverse=True)
    return days, np.bincount(place, rows[:, 2], len(days)).astype(np.int64)


@dataclass(frozen=True, eq=False)
class PairDays:
    """The distinct (user, item) pairs of each day, ordered by day and user; arrays int32 [P].

    Attributes:
        users, items: numbers from 0 on.
        days: since 1970-01-01.
        before: the day of the pair's last earlier event. `_NEVER`: there is none.
    """

    users: _Days
    items: _Days
    days: _Days
    before: _Days

    @classmethod
    def read(cls, db: Any) -> PairDays:
        """Reads the pairs from a table `acts` of users u, items i and days d."""
        found = db.sql(_PAIR_DAYS, params={"never": _NEVER}).to_arrow_table()
        users, items = (found.column(name).combine_chunks().dictionary_encode().indices.to_numpy() for name in ("u", "i"))
        return cls(users, items, found.column("d").to_numpy(), found.column("before").to_numpy())

    def count_warm(self, span: int) -> WarmPairs:
        """Counts the warm pairs of each day's span by the length of window that they need.

        By hand: user 0 takes item 0 on the days 0, 5 and 6. The span of days 5 and 6 has the pair once and needs a window of
        5 days. The span of days 4 and 5 needs 4. The span from day 6 on needs one day.
        """
        last_of_user, last_of_item = (np.full(ids.max(initial=0) + 1, _NEVER, np.int32) for ids in (self.users, self.items))
        first_days = np.unique(np.unique(self.days)[:, None] - np.arange(span))
        begins, ends = np.searchsorted(self.days, first_days), np.searchsorted(self.days, first_days + span)
        tables: tuple[list[_Ints], list[_Ints]] = ([], [])
        seen = 0
        for day, begin, end in zip(first_days.tolist(), begins.tolist(), ends.tolist(), strict=True):
            last_of_user[self.users[seen:begin]] = self.days[seen:begin]
            last_of_item[self.items[seen:begin]] = self.days[seen:begin]
            seen, rows = begin, slice(begin, end)
            last = np.minimum(last_of_user[self.users[rows]], last_of_item[self.items[rows]])
            last[self.before[rows] >= day] = _NEVER  # the span has the pair on an earlier day
            by_user = np.argsort(self.users[rows], kind="stable")
            of_users = np.unique(self.users[rows][by_user], return_index=True)[1]
            for table, days in zip(tables, (last, np.maximum.reduceat(last[by_user], of_users)), strict=True):
                counts = np.bincount(day - days[days > _NEVER])
                needed = np.flatnonzero(counts)
                table.append(np.stack([np.full(len(needed), day), needed, counts[needed]], axis=1))
        pairs, users = (np.concatenate(table) for table in tables)
        return WarmPairs(pairs, users, span)


@dataclass(frozen=True)
class LogHabits:
    """Habits of the users, measured on positive events. Fractions are of the events of the recent days.

    Attributes:
        events_per_day: median over the recent days with events.
        history_events: median number of events of recently active users.
        long_history_events: a tenth of these users have more events.
        known_frac: fraction of events by users with an event on an earlier day.
        repeat_frac: fraction of events on an item that the user met on an earlier day.
        item_spread_days: standard deviation of the times when users first met an item, around the item's mean. It is
            unbiased, so that items with few meetings do not look short-lived. None: fewer than `MIN_MEETINGS`.
        spread_days: the same around the mean of all items, for comparison: equal for items that are always there.
        new_per_day: mean number of events per recent day on items new to their user.
        days: days with events, ascending, since 1970-01-01; `day_events` has their counts.
    """

    events_per_day: float
    history_events: int
    long_history_events: int
    known_frac: float
    repeat_frac: float
    item_spread_days: float | None
    spread_days: float
    new_per_day: float
    days: _Ints
    day_events: _Ints
    pairs: PairDays


def select_positive(db: Any, events: Sequence[str], last: dt.date = dt.date.max) -> int:
    """Creates the table `acts` of a log's positive events up to a day: user u, item i, time t (ms), day d. Returns its number of rows."""
    whole = (
        "user_id IS NOT NULL AND item_id IS NOT NULL AND time_ms IS NOT NULL AND list_contains($events, event) AND day <= $last"
    )
    columns = "hash(user_id) AS u, hash(item_id) AS i, time_ms AS t, day AS d"
    asked = {"events": list(events), "last": to_number(last)}
    db.execute(f"CREATE OR REPLACE TEMP TABLE acts AS SELECT {columns} FROM log WHERE {whole}", asked)
    return int(db.execute("SELECT count(*) FROM acts").fetchall()[0][0])


def drop_tail(db: Any) -> int:
    """Removes the days of a thin tail from the table `acts`, which must not be empty. Returns the number of removed events."""
    return int(db.execute("DELETE FROM acts WHERE d > ?", [find_bulk_end(*_count_days(db))]).fetchall()[0][0])


def last_day(db: Any) -> dt.date:
    """Returns the last day of the non-empty table `acts`."""
    return to_date(db.execute("SELECT max(d) FROM acts").fetchall()[0][0])


def find_bulk_end(days: _Ints, counts: _Ints) -> int:
    """Returns the last day before a thin tail, or the last day if there is no such tail.

    The bulk ends where the fraction of events is furthest ahead of the fraction of days. The rest is a tail if one of its
    days has less than a tenth of a mean day's events. Larger days are cut to the ninth decile, so that an import or a sale
    does not make the log itself a tail.

    Args:
        days: days with events, ascending; `counts` has the events of each.
    """
    usual = np.cumsum(np.minimum(counts, np.quantile(counts, _USUAL, method="lower")))
    events, passed = usual / usual[-1], (days + 1 - days[0]) / (days[-1] + 1 - days[0])
    end = int(np.argmax(events - passed))
    return int(days[end if 1 - events[end] < _THIN * (1 - passed[end]) else -1])


def _count_days(db: Any) -> tuple[_Ints, _Ints]:
    counts = db.execute("SELECT d, count(*) FROM acts GROUP BY d ORDER BY d").fetchall()
    days, events = np.array(counts, np.int64).reshape(-1, 2).T
    return days, events


def find_habits(db: Any) -> LogHabits | None:
    """Returns the habits in the table `acts`; None if it has no rows."""
    days, day_events = _count_days(db)
    if not len(days):
        return None
    recent = {"recent": int(days[days > days[-1] - RECENT_DAYS][0])}
    last_days = days[-_LAST_DAYS:]
    known, repeat, new = db.execute(_SHARES, recent | {"last": int(last_days[0])}).fetchall()[0]
    ((half, most),) = db.execute(_LENGTHS, recent).fetchall()[0]
    meetings, squares, spread = db.execute(_SPREAD, recent).fetchall()[0]
    return LogHabits(
        events_per_day=float(np.median(day_events[days >= recent["recent"]])),
        history_events=int(half),
        long_history_events=int(most),
        known_frac=known,
        repeat_frac=repeat,
        item_spread_days=float(squares / meetings) ** 0.5 if meetings >= MIN_MEETINGS else None,
        spread_days=spread,
        new_per_day=new / len(last_days),
        days=days,
        day_events=day_events,
        pairs=PairDays.read(db),
    )
