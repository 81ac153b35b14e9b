"""How users and items of a log behave: lengths of histories, repetition, sessions, turnover, and how fast popularity ages.

Whole users are sampled by a hash of their ids, so that at most `MAX_EVENTS` events are in memory whatever the size of the log;
counts of events are exact. Facts about habits are those of the last `RECENT_DAYS` days that have events, for settings are chosen
for the days to come.

Belongs here: collecting blocks, and the facts. Does not belong here: settings that follow (`starter_config.py`), reading the
log (`storage/sources`).

Letters: E events.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core.arrays.hashing import hash_values
from dssm_assets.core.arrays.ragged import repeat_rows
from dssm_assets.core.columns import EVENT, ITEM_ID, USER_ID
from dssm_assets.core.config.pipeline import BehaviorTable
from dssm_assets.core.errors import SchemaError
from dssm_assets.core.sources.canonical_tables import EVENT_TIME
from dssm_assets.core.sources.convert import to_ids, to_text
from dssm_assets.core.sources.event_time import dates_of, to_event_time_ms
from dssm_assets.extras.starter.warm_pairs import WarmPairs, to_number

MAX_EVENTS: Final = 2_000_000
RECENT_DAYS: Final = 30
MIN_MEETINGS: Final = 100
"""Users who met an item after its first one, over all items."""
SCORED_DAYS: Final = 3
"""Last days that have events, on which half-lives of popularity are compared."""
LIST_LENGTH: Final = 50
HALF_LIVES: Final = (0.25, 1.0, 3.0, 7.0, 30.0, 90.0)
_MS_PER_DAY: Final = 86_400_000

_Words = npt.NDArray[np.uint64]
_Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class LogHabits:
    """Facts of the positive events; fractions are of the recent days' events.

    Attributes:
        events: of all days, exact.
        events_per_day: median over the recent days that have events, exact.
        history_events: half of the recently active users have more events than this.
        long_history_events: a tenth of them has more.
        known_frac: events whose user has an event on an earlier day.
        repeat_frac: events whose user interacted with the same item on an earlier day.
        item_spread_days: standard deviation of the times at which users first met an item around the item's mean, over the recent days.
            None: fewer than `MIN_MEETINGS` of them can tell.
        spread_days: the same around the mean of all items. Items that are always there have both alike, whatever the
            catalogue's size; of items that live for a day the first is far below.
        new_per_day: mean over the last days of events on items that their users had not interacted with on an earlier day.
        half_life_days: of the recent popularity whose 50 first items hold most events of the last days; None: counts without decay.
        days: that have events, ascending, in days since 1970-01-01.
        day_events: of each of them, exact.
        pairs: of user and item, by day.
    """

    events: int
    events_per_day: float
    history_events: int
    long_history_events: int
    known_frac: float
    repeat_frac: float
    item_spread_days: float | None
    spread_days: float
    new_per_day: float
    half_life_days: float | None
    days: _Ints = field(compare=False, repr=False)
    day_events: _Ints = field(compare=False, repr=False)
    pairs: WarmPairs = field(compare=False, repr=False)

    @classmethod
    def unknown(cls, events: int, first: dt.date, last: dt.date) -> LogHabits:
        """Returns the habits of a log of which only the number of positive events, the first and the last day are known."""
        days = np.arange(to_number(first), to_number(last) + 1)
        mean = events / len(days)
        none = np.zeros(0, np.int64)
        return cls(
            events=events,
            events_per_day=mean,
            history_events=20,
            long_history_events=50,
            known_frac=1.0,
            repeat_frac=0.0,
            item_spread_days=None,
            spread_days=0.0,
            new_per_day=mean,
            half_life_days=7.0,
            days=days,
            day_events=np.full(len(days), int(mean)),
            pairs=WarmPairs(none, none, none),
        )


class HabitScan:
    """Collects positive events block by block."""

    def __init__(self, max_events: int = MAX_EVENTS) -> None:
        """Keeps at most `max_events` events and one block."""
        self._max_events = max_events
        self._every = 1
        self._parts: list[tuple[_Words, _Words, _Ints, _Ints]] = []
        self._kept = 0
        self._day_counts: dict[int, int] = {}

    def observe(self, users: pa.Array, items: pa.Array, time_ms: pa.Array, days: pa.Array) -> None:
        """Adds positive events: ids, timestamps (int64) and days (date32); rows with a missing value are left out."""
        is_whole = np.ones(len(users), np.bool_)
        for column in (users, items, time_ms, days):
            is_whole &= column.is_valid().to_numpy(zero_copy_only=False).astype(bool)
        kept = pa.array(is_whole)
        day = days.filter(kept).cast(pa.int32()).to_numpy().astype(np.int64)
        for one, count in zip(*np.unique(day, return_counts=True), strict=True):
            self._day_counts[int(one)] = self._day_counts.get(int(one), 0) + int(count)
        user = hash_values(users.filter(kept).cast(pa.string()))
        columns = (
            user,
            hash_values(items.filter(kept).cast(pa.string())),
            time_ms.filter(kept).to_numpy().astype(np.int64),
            day,
        )
        self._append(columns)
        while self._kept > self._max_events:
            self._every *= 2
            parts, self._parts, self._kept = self._parts, [], 0
            for part in parts:
                self._append(part)

    def observe_block(self, block: pa.Table, table: BehaviorTable, timezone: str, is_positive: Callable[[str], bool]) -> None:
        """Adds the positive events of a block of the log, with our column names.

        A block with faults, which `LogScan` names, is left out.

        Args:
            block: rows of the log.
            table: its configuration.
            timezone: zone of the days.
            is_positive: whether events of a name count.
        """
        try:
            users, items = (to_ids(block.column(name), name) for name in (USER_ID, ITEM_ID))
            time_ms = to_event_time_ms(
                block.column(EVENT_TIME),
                unit=table.time_unit,
                timezone=timezone,
                where=EVENT_TIME,
                time_format=table.time_format,
            )
            names = None if table.constant_event is not None else to_text(block.column(EVENT), EVENT)
        except (SchemaError, KeyError):
            return
        columns = [users, items, time_ms, dates_of(time_ms, timezone)]
        if names is not None:
            positive = [name for name in pc.unique(names).to_pylist() if name is not None and is_positive(name)]
            kept = pc.is_in(names, value_set=pa.array(positive, pa.string()))
            columns = [column.filter(kept) for column in columns]
        self.observe(*columns)

    def warm_pairs(self) -> WarmPairs | None:
        """Returns the pairs of each day; None if there was no event."""
        if not self._kept:
            return None
        user, item, _, day = (np.concatenate(column) for column in zip(*self._parts, strict=True))
        _, user = np.unique(user, return_inverse=True)
        _, item = np.unique(item, return_inverse=True)
        return WarmPairs.from_events(user, item, day, self._every)

    def habits(self) -> LogHabits | None:
        """Returns the facts; None if there was no event."""
        if not self._day_counts:
            return None
        user, item, time_ms, day = (np.concatenate(column) for column in zip(*self._parts, strict=True))
        order = np.lexsort((time_ms, user))
        _, user = np.unique(user[order], return_inverse=True)
        _, item = np.unique(item[order], return_inverse=True)
        return _summarise(user, item, time_ms[order], day[order], self._day_counts, self._every)

    def _append(self, columns: tuple[_Words, _Words, _Ints, _Ints]) -> None:
        # The hash also decides buckets elsewhere; its upper bits are as good and independent of them.
        is_kept = (columns[0] >> np.uint64(20)) % np.uint64(self._every) == 0
        user, item, time_ms, day = (column[is_kept] for column in columns)
        self._parts.append((user, item, time_ms, day))
        self._kept += int(is_kept.sum())


def _summarise(user: _Ints, item: _Ints, time_ms: _Ints, day: _Ints, day_counts: dict[int, int], every: int) -> LogHabits:
    """Returns the facts of events, sorted by user and time, of one in `every` users."""
    days = np.array(sorted(day_counts))
    recent_days = days[days > days[-1] - RECENT_DAYS]
    last_days = days[-SCORED_DAYS:]
    is_recent = day >= recent_days[0]
    lengths = np.bincount(user[is_recent], minlength=int(user.max(initial=-1)) + 1)
    history_lengths = np.bincount(user)[lengths > 0]
    first_day = np.full(int(user.max(initial=-1)) + 1, np.iinfo(np.int64).max)
    np.minimum.at(first_day, user, day)
    is_known, is_repeat = day > first_day[user], _find_repeats(user, item, day)
    item_spread, spread = _spread_days(user[is_recent], item[is_recent], time_ms[is_recent])

    def fraction(mask: npt.NDArray[np.bool_]) -> float:
        return float(mask[is_recent].mean()) if is_recent.any() else 0.0

    return LogHabits(
        events=sum(day_counts.values()),
        events_per_day=float(np.median([day_counts[int(one)] for one in recent_days])),
        history_events=int(np.quantile(history_lengths, 0.5)) if len(history_lengths) else 0,
        long_history_events=int(np.quantile(history_lengths, 0.9)) if len(history_lengths) else 0,
        known_frac=fraction(is_known),
        repeat_frac=fraction(is_repeat),
        item_spread_days=item_spread,
        spread_days=spread,
        new_per_day=every * float((~is_repeat & (day >= last_days[0])).sum()) / len(last_days),
        half_life_days=_best_half_life(item, time_ms, day, days),
        days=days,
        day_events=np.array([day_counts[int(one)] for one in days]),
        pairs=WarmPairs.from_events(user, item, day, every),
    )


def _spread_days(user: _Ints, item: _Ints, time_ms: _Ints) -> tuple[float | None, float]:
    """Returns how far first meetings of users and items lie around the mean of their item, and around the mean of all.

    Both are unbiased (divided by meetings less means), so that many items with few meetings do not look short-lived.
    """
    order = np.lexsort(
        (time_ms, item, user)
    )  # of a user and an item the earliest: many views in an hour say nothing about the item
    is_first = np.append(True, (np.diff(user[order]) != 0) | (np.diff(item[order]) != 0))[: len(order)]
    days = time_ms[order][is_first] / _MS_PER_DAY
    _, place, counts = np.unique(item[order][is_first], return_inverse=True, return_counts=True)
    if len(days) - len(counts) < MIN_MEETINGS:
        return None, float(days.std()) if len(days) else 0.0
    days = days - days.mean()  # squares of days since 1970 would lose the hours
    around_item = days - (np.bincount(place, days) / counts)[place]
    return float(np.sqrt((around_item**2).sum() / (len(days) - len(counts)))), float(days.std(ddof=1))


def _find_repeats(user: _Ints, item: _Ints, day: _Ints) -> npt.NDArray[np.bool_]:
    """Returns which events have an earlier day with the same user and item [E]."""
    order = np.lexsort((day, item, user))
    is_new = (np.diff(user[order]) != 0) | (np.diff(item[order]) != 0)
    begins = np.concatenate([[0], 1 + np.flatnonzero(is_new)])
    first = day[order][begins][repeat_rows(np.diff(np.append(begins, len(order))))]
    found = np.zeros(len(order), np.bool_)
    found[order] = day[order] > first
    return found


def _best_half_life(item: _Ints, time_ms: _Ints, day: _Ints, days: _Ints) -> float | None:
    """Returns the half-life whose first items hold most events of the last days; None if counts without decay do."""
    hits = np.zeros(len(HALF_LIVES) + 1)
    count = int(item.max(initial=-1)) + 1
    for scored in days[1:][-SCORED_DAYS:]:
        today, before = day == scored, day < scored
        if not today.any() or not before.any():
            continue
        age_days = (time_ms[today].min() - time_ms[before]) / _MS_PER_DAY
        truth = np.bincount(item[today], minlength=count)
        for place, half_life in enumerate((*HALF_LIVES, None)):
            weights = None if half_life is None else np.exp2(-age_days / half_life)
            score = np.bincount(item[before], weights=weights, minlength=count)
            hits[place] += truth[np.argsort(-score, kind="stable")[:LIST_LENGTH]].sum()
    best = len(hits) - 1 - int(np.argmax(hits[::-1]))  # of equal ones the longest
    return (*HALF_LIVES, None)[best]
