"""Settings of window, towers and training that fit a log's habits, each with the fact that chose it.

The rules were compared on logs of different kinds (`docs/what_was_learned.md`): purchases that repeat, ratings that never do,
many and few events a day. They never look at what is to be evaluated.

Belongs here: the rules. Does not belong here: the facts (`log_habits.py`), tables, events and features
(`starter_config.py`).
"""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from dssm_assets.extras.starter.log_habits import LogHabits
from dssm_assets.extras.starter.recipe import Recipe
from dssm_assets.extras.starter.warm_pairs import MIN_PAIRS, EvaluationDays, to_date, to_number

WANTED_EVENTS: Final = 200_000
"""Positive events that a training window should have."""
VALIDATION_EVENTS: Final = 3_000
"""Positive events that the validation days should have."""
MIN_NEW_EVENTS: Final = 100
"""Events on items new to their users without which the validation days could not be counted by new items."""
MIN_WINDOW: Final = 30
MAX_WINDOW: Final = 3660
WANTED_EVALUATION_DAYS: Final = 28
"""Days with enough warm pairs that the window leaves to evaluate, where a quarter of the log's days are as many."""
LEAST_EVALUATION_DAYS: Final = 3
"""The same for a short log, half of whose days are as many."""
EVALUATION_FRAC: Final = 0.25
MAX_CALENDAR: Final = 1500
"""Days beyond which the oldest are left out of the calendar as far as `WANTED_EVENTS` can be spared."""
MAX_VALIDATION_FRAC: Final = 0.2
MAX_VALIDATION_DAYS: Final = 365
"""Bound of `training.validation_days`; a log of decades with few events a day would want more."""
WANTED_SAMPLES: Final = 500_000
"""Samples that a fit reads, in as many epochs as that takes, two at least."""
MAX_EPOCHS: Final = 20
MAX_HISTORY: Final = 500
MAX_HISTORY_OF_EVENTS: Final = 100
"""The same where each sample reads a history of its own, which costs as much as all its events."""
REPEATING: Final = 0.1
"""Fraction of repeated events from which on a log counts as one of repeated interactions."""
KNOWN_USERS: Final = 0.5
"""Fraction of events by users with an earlier day from which on samples see the days before their own, as in serving."""
SHORT_LIFE_DAYS: Final = 3.5
"""Spread of an item's events up to which items live for days, a week at most."""
SHORT_LIFE_FRAC: Final = 0.8
"""The same as part of the spread of all recent events: in a log of five days every item's is short. Catalogues that stay have .95
and more, of logs of three days as of years; items that halve in a day have .16 in a month, .6 in five days, .72 to .76 in three."""
SHORT_HISTORY: Final = 10
"""Events of half of the active users below which histories are short."""
FEW_EVENTS: Final = 100
"""Positive events a day below which a day says little."""
MAX_OUTPUT_DIM: Final = 128
MIN_CODE_DIM: Final = 8
ITEMS_PER_DIM: Final = 8
"""Items of the corpus for each dimension of the codes: among a hundred items, 64 directions would be noise."""
SCORE_STD: Final = 0.1
"""Standard deviation of a user's products with the codes. That of towers' cosines, .2, fills lists with the user's own items."""
HELD_OUT_PAIRS: Final = 2_000
"""Pairs that the weights of channels are fitted on."""
WANTED_SPAN_PAIRS: Final = 120
"""Warm pairs of the days that are evaluated together."""
FEW_USERS: Final = 20
"""Users with warm pairs below which a day says little, however many pairs they have: a rate of eight users is off by a tenth."""
WANTED_SPAN_USERS: Final = 40
"""The same of days that are evaluated together, a user counted on each of its days."""
MAX_SPAN_DAYS: Final = 14
MIN_HELD_OUT_DAYS: Final = 7
MAX_HELD_OUT_DAYS: Final = 28


@dataclass(frozen=True)
class Line:
    """One `key: value` of the file, and why."""

    key: str
    value: str
    reason: str


@dataclass(frozen=True)
class StarterSettings:
    """The lines of each section, and what they follow from.

    Attributes:
        recipe: the starting point.
        recipe_reason: why.
        start: of the calendar.
        evaluation_days: that calendar and window leave.
        span_days: days that are evaluated together.
        window: and the following: the lines of the section of that name.
    """

    recipe: Recipe
    recipe_reason: str
    start: Line
    evaluation_days: EvaluationDays
    span_days: int
    window: tuple[Line, ...]
    statistics: tuple[Line, ...]
    model: tuple[Line, ...]
    training: tuple[Line, ...]
    channels: tuple[Line, ...]
    evaluation: tuple[Line, ...]

    @property
    def window_days(self) -> int:
        """Returns the days of the window."""
        return self.evaluation_days.window


def choose_settings(
    habits: LogHabits, first: dt.date, last: dt.date, *, items: int, code: str, recipe: Recipe | None = None
) -> StarterSettings:
    """Returns the settings for a log.

    Args:
        habits: of its positive events.
        first: its first day.
        last: its last day.
        items: how many there are.
        code: the embedding name of the item's closed-form code.
        recipe: the starting point; None: by the habits.
    """
    named, reason = choose_recipe(habits)
    if recipe is not None:
        reason = f"as asked for; by its habits the log is {named}, because {reason}" if recipe is not named else reason
    chosen = recipe or named
    start = calendar_start(habits, first, last)
    window = window_days(habits, chosen, to_date(start), last)
    shape = _Shape(habits, chosen, window, validation_days(habits, window), items, code)
    left = habits.pairs.evaluation_days(window, to_date(start), last).calendar_days
    pairs = _mean_of_last_days(*habits.pairs.count_by_day(window), left)
    users = _mean_of_last_days(*habits.pairs.count_users_by_day(window), left)
    span = span_days(pairs, users, left)
    return StarterSettings(
        recipe=chosen,
        recipe_reason=reason,
        start=_start_line(first, to_date(start)),
        evaluation_days=habits.pairs.evaluation_days(window, to_date(start), last, span=span),
        span_days=span,
        window=(_window_line(shape),),
        statistics=(_width_line(shape),),
        model=_model_lines(shape),
        training=_training_lines(shape),
        channels=(_held_out_line(pairs),),
        evaluation=(_recent_line(habits, window), *_span_lines(pairs, users, span)),
    )


@dataclass(frozen=True)
class _Shape:
    """What lines are derived from: a log's habits, and what was chosen for it."""

    habits: LogHabits
    recipe: Recipe
    window: int
    validation: int
    items: int
    code: str

    @property
    def events(self) -> int:
        """Returns the positive events of the last window."""
        return self._events_of(self.window)

    @property
    def validation_events(self) -> int:
        """Returns the positive events of the last validation days."""
        return self._events_of(self.validation)

    @property
    def length(self) -> int:
        """Returns the events of a history that are read."""
        most = MAX_HISTORY if self.is_by_day else MAX_HISTORY_OF_EVENTS
        return min(most, max(20, self.habits.long_history_events))

    @property
    def is_by_day(self) -> bool:
        """Returns whether samples see the days before their own, as in serving, and those of a day share their history."""
        return self.habits.known_frac >= KNOWN_USERS

    @property
    def code_dim(self) -> int:
        """Returns the width of codes and of ids: half of the vectors, less where the corpus is small.

        By hand: 300 items have 300 / 8 = 37, so 32 in steps of 8; 512 and more have 64.
        """
        return max(MIN_CODE_DIM, min(MAX_OUTPUT_DIM // 2, self.items // ITEMS_PER_DIM // 8 * 8))

    def _events_of(self, last_days: int) -> int:
        days = self.habits.days
        return int(self.habits.day_events[days > days[-1] - last_days].sum()) if len(days) else 0


def choose_recipe(habits: LogHabits) -> tuple[Recipe, str]:
    """Returns the starting point for a log, and why."""
    spread = habits.item_spread_days
    if spread is not None and spread <= min(SHORT_LIFE_DAYS, SHORT_LIFE_FRAC * habits.spread_days):
        return Recipe.NEWS, f"users meet an item within {_describe_life(habits)}"
    if habits.repeat_frac >= REPEATING:
        return Recipe.RETAIL, f"{habits.repeat_frac:.0%} of recent events repeat an item of an earlier day"
    if habits.history_events < SHORT_HISTORY or habits.events_per_day < FEW_EVENTS:
        return Recipe.SPARSE, (
            f"half of the active users have {habits.history_events:,} events or fewer, and a day has {habits.events_per_day:,.0f}"
        )
    return Recipe.VIDEO, (
        f"{habits.repeat_frac:.0%} of recent events repeat an item, and half of the active users have more than "
        f"{habits.history_events:,} events"
    )


def _describe_life(habits: LogHabits) -> str:
    if habits.item_spread_days is None:
        return "an unknown time: the recent days are too few events"
    return f"{habits.item_spread_days:.1f} days around its mean, where all recent events lie {habits.spread_days:.1f} days around theirs"


def calendar_start(habits: LogHabits, first: dt.date, last: dt.date) -> int:
    """Returns the first day of the calendar, in days since 1970-01-01.

    The log's first day, unless the log is longer than `MAX_CALENDAR` days: then the latest day that keeps that many days and
    `WANTED_EVENTS` events. By hand: 8,000 days with 10 events each have 80,000 events, so all are kept; with 1,000 each, the
    last 1,500 days are.
    """
    begin, end = to_number(first), to_number(last)
    if end + 1 - begin <= MAX_CALENDAR:
        return begin
    return max(begin, min(end + 1 - MAX_CALENDAR, _day_of_event(habits, WANTED_EVENTS)))


def _day_of_event(habits: LogHabits, wanted: int) -> int:
    """Returns the latest day from which on there are so many events; the first one if there are fewer."""
    from_end = np.cumsum(habits.day_events[::-1])
    place = int(np.searchsorted(from_end, wanted))
    return int(habits.days[::-1][min(place, len(habits.days) - 1)]) if len(habits.days) else 0


def window_days(habits: LogHabits, recipe: Recipe, start: dt.date, last: dt.date) -> int:
    """Returns the training days: enough for `WANTED_EVENTS`, with days left that can be evaluated.

    At least 30 where there are as many. Of items that live for days, old events say little: 30. A window that leaves fewer than
    `WANTED_EVALUATION_DAYS` days with enough warm pairs (of a short log: than a quarter of its days, and than three) is
    shortened until it leaves them, or if none does, until it leaves most.
    """
    end = to_number(last)
    log_days = end + 1 - to_number(start)
    wanted = MIN_WINDOW if recipe is Recipe.NEWS else end + 1 - _day_of_event(habits, WANTED_EVENTS)
    longest = max(1, min(max(MIN_WINDOW, wanted), MAX_WINDOW, log_days - 1))
    event_days = int((habits.days >= to_number(start)).sum())
    needed = max(1, min(LEAST_EVALUATION_DAYS, event_days // 2), min(WANTED_EVALUATION_DAYS, int(event_days * EVALUATION_FRAC)))
    lengths = sorted({max(1, int(longest * 0.95**step)) for step in range(100)}, reverse=True)
    left = [len(habits.pairs.evaluation_days(days, start, last).days) for days in lengths]
    most = max(left)
    if not most:
        return max(1, min(longest, log_days - needed))
    return next(days for days, count in zip(lengths, left, strict=True) if count >= min(needed, most))


def validation_days(habits: LogHabits, window: int) -> int:
    """Returns the last days of the window on which epochs and prior are chosen; 0 if the window has a single day.

    By hand: 600 events a day need 5 days for 3,000; a window of 12 days spares 2, and one of 3 days still spares one, because
    the towers are fitted again on the whole window afterwards.
    """
    wanted = int(habits.days[-1]) + 1 - _day_of_event(habits, VALIDATION_EVENTS) if len(habits.days) else 1
    return min(max(1, wanted), max(int(window * MAX_VALIDATION_FRAC), int(window > 1)), MAX_VALIDATION_DAYS)


def _start_line(first: dt.date, start: dt.date) -> Line:
    reason = "the log's first day"
    if start > first:
        reason = f"the log begins on {first}: days before this are many and have events that the window can spare"
    return Line("start", str(start), reason)


def _window_line(shape: _Shape) -> Line:
    facts = f"the last {shape.window} days have {shape.events:,} positive events; {WANTED_EVENTS:,} are enough"
    if shape.recipe is Recipe.NEWS:
        facts = f"users meet an item within {_describe_life(shape.habits)}: older days say little"
    reason = f"training days before each evaluation day. {facts}, and days to evaluate must be left"
    return Line("days", str(shape.window), reason)


def _width_line(shape: _Shape) -> Line:
    reason = f"wide enough to tell {shape.items:,} items apart; both together are the width of the vectors"
    return Line("embedding_dim", f"{{item: {shape.code_dim}, {shape.code}: {shape.code_dim}}}", reason)


def span_days(pairs_per_day: float, users_per_day: float, days_left: int) -> int:
    """Returns the days whose interactions are to be found together: one, but of a log with few users or pairs a day more.

    By hand: 30 warm pairs of 20 users a day and more are a day; with 10 pairs, twelve days have the `WANTED_SPAN_PAIRS` of a span,
    and with 8 users, five days the `WANTED_SPAN_USERS`. A quarter of the days that the window leaves to evaluate is the most.
    """
    if not pairs_per_day:
        return 1
    wanted = 1
    if pairs_per_day < MIN_PAIRS:
        wanted = math.ceil(WANTED_SPAN_PAIRS / pairs_per_day)
    if users_per_day < FEW_USERS:
        wanted = max(wanted, math.ceil(WANTED_SPAN_USERS / users_per_day))
    return max(1, min(MAX_SPAN_DAYS, days_left // 4, wanted))


def _span_lines(pairs: float, users: float, span: int) -> tuple[Line, ...]:
    reason = f"a day has about {pairs:,.0f} warm pairs of {users:,.0f} users: {span} days are evaluated together"
    return (Line("span_days", str(span), reason),) if span > 1 else ()


def _mean_of_last_days(days: npt.NDArray[np.int64], counts: npt.NDArray[np.int64], days_left: int) -> float:
    """Returns the mean of counts of days over the last weeks, empty days included, of the days that the window leaves."""
    last_days = max(1, min(MAX_HELD_OUT_DAYS, days_left))
    return float(counts[days > days[-1] - last_days].sum()) / last_days if len(days) else 0.0


def _held_out_line(pairs: float) -> Line:
    """Returns how far back channel weights may look: as many days as have `HELD_OUT_PAIRS` warm pairs, a week at least."""
    wanted = min(MAX_HELD_OUT_DAYS, max(MIN_HELD_OUT_DAYS, math.ceil(HELD_OUT_PAIRS / max(pairs, 1.0))))
    return Line("held_out_days", str(wanted), f"a day has about {pairs:,.0f} warm pairs, and weights want {HELD_OUT_PAIRS:,}")


def _recent_line(habits: LogHabits, window: int) -> Line:
    half_life = habits.half_life_days
    if half_life is None:
        return Line("recent_days", str(min(7, window)), "popularity of all days predicts the last days best")
    days = max(1, min(window, round(2 * half_life)))
    return Line("recent_days", str(days), f"popularity that halves in {half_life:g} days predicts the last days best")


def _model_lines(shape: _Shape) -> tuple[Line, ...]:
    habits, length = shape.habits, shape.length
    by_day = shape.is_by_day
    lengths = f"half of the active users have more than {habits.history_events:,} events, a tenth more than {habits.long_history_events:,}"
    poolings = (
        f"[{{kind: root, length: {length}}}, {{kind: mean, length: {min(50, length)}}}, "
        f"{{kind: recency, length: {min(50, length)}, scale: 10}}]"
    )
    day_reason = f"{habits.known_frac:.0%} of recent events are by users with an earlier day"
    width = shape.code_dim
    lines = [
        Line("output_dim", str(2 * width), f"{width} learned dimensions and {width} of codes"),
        Line("frozen_embedding", shape.code, "codes of items by co-occurrence, in closed form, next to what the towers learn"),
        Line("frozen_in_loss", "false", "towers and codes are learned apart and added"),
        Line("hidden_units", "[128]", "one hidden layer"),
        Line("norm", "none", "small towers need no normalisation"),
        Line("skip", "true", "history and items begin in one space"),
        Line("embedding_dropout", "0.2", "against learning users by heart"),
        Line("temperature", "0.1", "of the cosine"),
        Line(
            "history",
            "day" if by_day else "event",
            day_reason + (", as in serving" if by_day else ": the day itself must count"),
        ),
        Line("history_length", str(length), lengths),
        Line("poolings", poolings, "the whole history, the last events, the very last ones"),
        Line("num_sample", "1024", "negatives in addition to those of the batch"),
    ]
    if habits.new_per_day * max(1, shape.validation) >= MIN_NEW_EVENTS:
        reason = (
            f"about {habits.new_per_day:,.0f} events a day are on items new to their users; own items are left to own history"
        )
        lines.append(Line("targets", "new", reason))
    if shape.validation:
        reason = "popularity is added as far as it helps on the validation days, that of two hours or of 90 days"
        lines.append(Line("prior", "true", reason))
    if habits.repeat_frac >= REPEATING:
        reason = f"{habits.repeat_frac:.0%} of recent events repeat an item of an earlier day: own items are no negatives"
        lines.append(Line("user_positive_mask", "true", reason))
    if shape.window >= 2 * MIN_WINDOW:
        lines.append(Line("recency_half_life_days", str(shape.window // 2), "a long window: its last days weigh more"))
    return tuple(lines)


def _training_lines(shape: _Shape) -> tuple[Line, ...]:
    events = shape.events
    epochs = max(2, min(MAX_EPOCHS, math.ceil(WANTED_SAMPLES / max(1, events))))
    batch = 512 if events <= 500_000 else 1024
    codes = f"{{embedding: {shape.code}, score_std: {SCORE_STD}, ridge: 30, popularity_exponent: 0.25, user_exponent: 0.5}}"
    lines = [
        Line("epochs", str(epochs), f"at most; {events:,} positive events in the last window"),
        Line("batch_size", str(batch), "by the same number"),
        Line("embedding_optimiser", "adam", "a first moment helps where rows are read often"),
        Line("learning_rate", "0.003", "of the layers: high, so that few epochs are enough"),
        Line("embedding_learning_rate", "0.006", "of the tables"),
        Line("weight_average", "0.998", "the moving average is published: epochs differ less"),
        Line(
            "svd_init",
            codes,
            "the codes: near a regression of histories on themselves (EASE), half as strong as the towers' cosines: they also rank own items high",
        ),
    ]
    if shape.is_by_day:
        lines.append(Line("group_sessions", "true", "one pass of the user tower for all samples of a user and day"))
    if shape.validation:
        reason = f"the last days of the window choose the number of epochs and the prior: {shape.validation_events:,} events"
        lines.append(Line("validation_days", str(shape.validation), reason))
    return tuple(lines)
