"""Which days of a log could be evaluated: how many pairs of user and item each has whose user and item the window knows.

A pair is warm, as in the evaluation, if its user and its item have a positive event in the window before its day. For each pair
the shortest such window is kept, so that any window can be asked for.

Belongs here: counting pairs by day, and the days that have enough of them. Does not belong here: reading the log, the choice of
the window (`starter_settings.py`).

Letters: E events, P distinct triples of user, item and day.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

MIN_PAIRS: Final = 30
"""Warm pairs that a day needs for a figure that says something."""
_NEVER: Final = np.iinfo(np.int64).max
_EPOCH: Final = dt.date(1970, 1, 1).toordinal()

_Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class EvaluationDays:
    """The days that have enough warm pairs.

    Attributes:
        days: in days since 1970-01-01, ascending.
        window: the training days before each.
        calendar_days: days of the calendar that have a whole window before them.
        min_pairs: that each has.
    """

    days: tuple[int, ...]
    window: int
    calendar_days: int
    min_pairs: int = MIN_PAIRS

    @property
    def first(self) -> dt.date | None:
        """Returns the first of them."""
        return to_date(self.days[0]) if self.days else None

    @property
    def last(self) -> dt.date | None:
        """Returns the last of them."""
        return to_date(self.days[-1]) if self.days else None

    @property
    def sentence(self) -> str:
        """Returns how many there are, the first and the last, for a line of output."""
        of_all = f"of {self.calendar_days:,} after a window of {self.window} days"
        if not self.days:
            return f"none {of_all} has {self.min_pairs} warm pairs or more"
        return f"{len(self.days):,} {of_all} have {self.min_pairs} warm pairs or more, the first is {self.first}, the last {self.last}"


@dataclass(frozen=True)
class WarmPairs:
    """The pairs of a log's days.

    Attributes:
        user: numbered from 0 [P].
        day: in days since 1970-01-01 [P].
        needed: days of the shortest window that knows user and item; a very large number if nothing before does [P].
        weight: how many pairs each represents, 1 unless users were sampled.
    """

    user: _Ints
    day: _Ints
    needed: _Ints
    weight: int = 1

    @classmethod
    def from_events(cls, user: _Ints, item: _Ints, day: _Ints, weight: int = 1) -> WarmPairs:
        """Returns the pairs of positive events [E]; user and item are numbered from 0."""
        width = int(item.max(initial=-1)) + 1
        order = np.lexsort((day, user * width + item))
        user, item, day = user[order], item[order], day[order]
        is_first = np.ones(len(day), np.bool_)
        is_first[1:] = (np.diff(user) != 0) | (np.diff(item) != 0) | (np.diff(day) != 0)
        user, item, day = user[is_first], item[is_first], day[is_first]
        return cls(user, day, np.maximum(_days_since_last(user, day), _days_since_last(item, day)), weight)

    def count_by_day(self, window: int) -> tuple[_Ints, _Ints]:
        """Returns the days with warm pairs, ascending, and about how many each has."""
        days, counts = np.unique(self.day[self.needed <= window], return_counts=True)
        return days, counts * self.weight

    def count_users_by_day(self, window: int) -> tuple[_Ints, _Ints]:
        """Returns the days with warm pairs, ascending, and about how many users each has them of."""
        is_warm = self.needed <= window
        user, day = self.user[is_warm], self.day[is_warm]
        order = np.lexsort((user, day))
        is_first = np.ones(len(order), np.bool_)
        is_first[1:] = (np.diff(day[order]) != 0) | (np.diff(user[order]) != 0)
        days, counts = np.unique(day[order][is_first], return_counts=True)
        return days, counts * self.weight

    def evaluation_days(
        self, window: int, first: dt.date, last: dt.date, min_pairs: int = MIN_PAIRS, span: int = 1
    ) -> EvaluationDays:
        """Returns the days with at least `min_pairs` that have a whole window in the calendar.

        By hand: users a and b take item x on day 0, a takes it on day 5 and b on day 9. With a window of 4 days no pair is
        warm: on day 5 the item and the user are 5 days old. With one of 5, day 5 has a pair; day 9 has one from 9 days on,
        when b is known.

        Args:
            window: training days before each.
            first: day of the calendar.
            last: day of the calendar.
            min_pairs: that each needs.
            span: days whose pairs count for an evaluation day, which is the first of them; each by the window before itself.
        """
        begin, end = to_number(first) + window, to_number(last) - span + 1
        days, counts = self.count_by_day(window)
        if span > 1:
            sums, found = np.append(0, np.cumsum(counts)), np.arange(begin, max(begin, end + 1))
            counts = sums[np.searchsorted(days, found + span)] - sums[np.searchsorted(days, found)]
            days = found
        kept = days[(counts >= min_pairs) & (days >= begin) & (days <= end)]
        return EvaluationDays(tuple(kept.tolist()), window, max(0, end + 1 - begin), min_pairs)


def _days_since_last(entity: _Ints, day: _Ints) -> _Ints:
    """Returns the days since the entity's last earlier day [P]."""
    order = np.lexsort((day, entity))
    entities, days = entity[order], day[order]
    same_entity = np.zeros(len(order), np.bool_)
    same_entity[1:] = np.diff(entities) == 0
    is_new_day = ~same_entity
    is_new_day[1:] |= np.diff(days) != 0
    begins = np.flatnonzero(is_new_day)  # the first pair of each day of each entity
    gaps = np.full(len(begins), _NEVER)
    follows = same_entity[begins]
    gaps[follows] = (days[begins] - days[begins - 1])[follows]
    found = np.empty(len(order), np.int64)
    found[order] = gaps[np.cumsum(is_new_day) - 1]
    return found


def to_date(day: int) -> dt.date:
    """Returns the date of a day since 1970-01-01."""
    return dt.date.fromordinal(_EPOCH + int(day))


def to_number(date: dt.date) -> int:
    """Returns the days from 1970-01-01 to a date."""
    return date.toordinal() - _EPOCH
