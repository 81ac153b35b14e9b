"""Chooses settings that fit a log's habits, to fill in the template of its recipe (`templates/`).

The rules were compared on logs of different kinds (`docs/what_was_learned.md`): purchases that repeat, ratings that never
do, many and few events a day. They never use the events to be evaluated.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Final

import numpy as np

from dssm_assets.extras.starter.log_table import MIN_PAIRS, EvaluationDays, LogHabits, WarmPairs, to_date, to_number

WANTED_EVENTS: Final = 200_000
"""A training window should have so many positive events."""
MIN_WINDOW: Final = 30
MAX_CALENDAR: Final = 1500
"""The calendar of a longer log is its last `SHORT_CALENDAR` days: a day has 19 partitions, however few its events."""
SHORT_CALENDAR: Final = 730
REPEATING: Final = 0.1
"""From this fraction of repeated events on, a log counts as one of repeated interactions."""
SHORT_LIFE_DAYS: Final = 3.5
"""If the spread of an item's events is at most so many days, items live for days, a week at most."""
SHORT_LIFE_FRAC: Final = 0.8
"""The same limit as a fraction of the spread of all recent events, because in a log of five days every item has a short spread. A lasting
catalogue has .95 or more, in logs of any length. Items that halve in a day have .16 in a month, .6 in five days, .72 to .76 in three."""
HELD_OUT_DAYS: Final = (7, 28)
"""The least and the most days that the weights of channels are fitted on."""
SPAN_PAIRS: Final = 120
"""The days that are evaluated together should have so many warm pairs."""
FEW_USERS: Final = 20
"""A day with fewer users with warm pairs says little, however many pairs they have: a rate of eight users is off by a tenth."""
SPAN_USERS: Final = 40
"""The days that are evaluated together should have so many users."""

_MAX_SPAN: Final = 90
_SPANS_LEFT: Final = 4


class Recipe(StrEnum):
    """A named starting point for one kind of log."""

    RETAIL = "retail"
    """Users interact with the same items again: shops, groceries, music."""
    VIDEO = "video"
    """No user interacts with an item twice and histories are long: films, books, videos."""
    NEWS = "news"
    """Items live for days: news, offers, short videos."""
    SPARSE = "sparse"
    """Few events: short histories, or few users a day."""


@dataclass(frozen=True)
class StarterSettings:
    """The chosen recipe and its reason, the first day of the calendar, and the days that can be evaluated.

    `values` maps names in the recipe's template to values. None leaves the line out.
    """

    recipe: Recipe
    recipe_reason: str
    start: dt.date
    evaluation_days: EvaluationDays
    values: Mapping[str, object]


def choose_settings(habits: LogHabits, first: dt.date, *, items: int, recipe: Recipe | None = None) -> StarterSettings:
    """Chooses the settings for a log by its first day, items and habits. `recipe` None: the habits also choose the recipe."""
    named, reason = choose_recipe(habits)
    if recipe is not None and recipe is not named:
        reason = f"as asked for; by its habits the log is {named}, because {reason}"
    chosen = recipe or named
    choice = choose_days(habits, chosen, first)
    start, window, span, pairs, users = choice.start, choice.days.window, choice.span, choice.pairs, choice.users
    validation = validation_days(habits, window)
    events = int(habits.day_events[habits.days > habits.days[-1] - window].sum())
    sees_days = habits.known_frac >= 0.5  # samples see the days before their own, as in serving
    # Where each sample reads a history of its own, 100 events cost as much as 500 that are read once a day.
    length = min(500 if sees_days else 100, max(20, habits.long_history_events))
    # By hand: 300 items have 300 / 8 = 37 dimensions of codes, so 32 in steps of 8; 512 and more have 64.
    code_dim = max(8, min(64, items // 8 // 8 * 8))
    values = {
        "window_days": window,
        "code_dim": code_dim,
        "output_dim": 2 * code_dim,
        "history": "day" if sees_days else "event",
        "history_length": length,
        "latest": min(50, length),
        # With fewer than 100 such events the validation days could not be counted by new items.
        "targets": "new" if habits.new_per_day * max(1, validation) >= 100 else None,
        "prior": "true" if validation else None,
        "user_positive_mask": "true" if habits.repeat_frac >= REPEATING else None,
        "recency_half_life_days": window // 2 if window >= 2 * MIN_WINDOW else None,
        "epochs": max(2, min(20, math.ceil(500_000 / max(1, events)))),  # a fit reads half a million samples
        "batch_size": 512 if events <= 500_000 else 1024,
        "group_sessions": "true" if sees_days else None,
        "validation_days": validation or None,
        "held_out_days": min(HELD_OUT_DAYS[1], max(HELD_OUT_DAYS[0], math.ceil(2_000 / max(pairs, 1.0)))),  # 2,000 pairs
        "span_days": span if span > 1 else None,
        "events": f"{events:,}",
        "pairs": f"{pairs:,.0f}",
        "users": f"{users:,.0f}",
    }
    return StarterSettings(chosen, reason, start, choice.days, values)


def choose_recipe(habits: LogHabits) -> tuple[Recipe, str]:
    spread = habits.item_spread_days
    if spread is not None and spread <= min(SHORT_LIFE_DAYS, SHORT_LIFE_FRAC * habits.spread_days):
        return Recipe.NEWS, (
            f"users meet an item within {spread:.1f} days around its mean, where all recent events lie {habits.spread_days:.1f} days around theirs"
        )
    repeats = f"{habits.repeat_frac:.0%} of recent events repeat an item of an earlier day"
    if habits.repeat_frac >= REPEATING:
        return Recipe.RETAIL, repeats
    users = f"half of the active users have {habits.history_events:,} events or fewer"
    history = f"{users}, and a recent day has {habits.events_per_day:,.0f} events"
    if habits.history_events < 10 or habits.events_per_day < 100:
        return Recipe.SPARSE, history
    return Recipe.VIDEO, f"{repeats}, and half of the active users have more than {habits.history_events:,} events"


def _day_of_event(habits: LogHabits, wanted: int) -> int:
    """Returns the latest day such that the days from it on have `wanted` events, or the first day if all have fewer."""
    from_end = np.cumsum(habits.day_events[::-1])
    place = int(np.searchsorted(from_end, wanted))
    return int(habits.days[::-1][min(place, len(habits.days) - 1)])


@dataclass(frozen=True)
class DaysChoice:
    """Calendar, window and span of an evaluation. `pairs`, `users`: mean number of a day's warm pairs and users in recent weeks."""

    start: dt.date
    days: EvaluationDays
    span: int
    pairs: float
    users: float


def calendar_start(first: dt.date, last: dt.date) -> dt.date:
    return last - dt.timedelta(days=SHORT_CALENDAR - 1) if (last - first).days >= MAX_CALENDAR else first


def choose_days(habits: LogHabits, recipe: Recipe, first: dt.date) -> DaysChoice:
    """Chooses the first day of the calendar, the window, and the number of days evaluated together."""
    last = to_date(habits.days[-1])
    start = calendar_start(first, last)
    count_warm = cache(habits.pairs.count_warm)
    window, span = window_days(habits, count_warm(1), recipe, start, last), 1

    def mean_of_last_days(span: int) -> tuple[float, float]:
        return count_warm(span).mean_of_last_days(window, start, last, at_most=HELD_OUT_DAYS[1])

    for _ in range(2):  # a span's day has fewer pairs than a single day, so the first guess may be too short
        span = max(span, span_days(span, *mean_of_last_days(span), (last - start).days + 1 - window))
    if mean_of_last_days(span)[0] < MIN_PAIRS:
        window = window_days(habits, count_warm(span), recipe, start, last)
    pairs, users = mean_of_last_days(1)
    return DaysChoice(start, count_warm(span).evaluation_days(window, start, last), span, pairs, users)


def window_days(habits: LogHabits, pairs: WarmPairs, recipe: Recipe, start: dt.date, last: dt.date) -> int:
    """Returns the number of training days: enough for `WANTED_EVENTS`, with days left to evaluate.

    It is between 30 days (or the whole log) and ten years; for items that live for days it is 30, because old events say
    little. The days after the window should include 28 with enough warm pairs (in a short log a quarter of its days, at
    least three or half of them). Otherwise the window is shortened until they do, or to leave as many as possible. Four
    spans of several days fit behind it.
    """
    end = to_number(last)
    log_days = end + 1 - to_number(start)
    wanted = MIN_WINDOW if recipe is Recipe.NEWS else end + 1 - _day_of_event(habits, WANTED_EVENTS)
    left = 1 if pairs.span == 1 else _SPANS_LEFT * pairs.span
    longest = max(1, min(max(MIN_WINDOW, wanted), 3660, log_days - left))
    event_days = int((habits.days >= to_number(start)).sum())
    needed = max(1, min(3, event_days // 2), min(28, event_days // 4))
    lengths = sorted({max(1, int(longest * 0.95**step)) for step in range(100)}, reverse=True)
    counts = [len(pairs.evaluation_days(days, start, last).days) for days in lengths]
    if not (most := max(counts)):
        return max(1, min(longest, log_days - needed))
    return next(days for days, count in zip(lengths, counts, strict=True) if count >= min(needed, most))


def validation_days(habits: LogHabits, window: int) -> int:
    """Returns the number of last window days on which epochs and prior are chosen; 0 if the window has a single day.

    They should have 3,000 events, even if the last day is a sale, but at most a fifth of the window and a year. A window of
    3 days still gives one, because the towers are fitted again on the whole window afterwards.
    """
    last_days = int(habits.days[-1]) + 1 - _day_of_event(habits, 3_000)
    wanted = max(last_days, math.ceil(3_000 / max(1.0, habits.events_per_day)))
    return min(wanted, max(window // 5, int(window > 1)), 365)


def span_days(span: int, pairs: float, users: float, days_left: int) -> int:
    """Returns how many days are evaluated together: one, but more for a log with few users or pairs a day.

    A span has `SPAN_PAIRS` pairs and `SPAN_USERS` users, but no more than a quarter of the days that the window leaves to evaluate.

    Args:
        span: days behind `pairs` and `users`, which are means of the last weeks. If these suffice, it is the answer.
    """
    if (pairs >= MIN_PAIRS and users >= FEW_USERS) or (span == 1 and not pairs):
        return span
    lacking = max(SPAN_PAIRS / max(pairs, 0.1), SPAN_USERS / max(users, 0.1))
    return max(1, min(_MAX_SPAN, days_left // _SPANS_LEFT, math.ceil(span * lacking)))
