"""Settings of window, towers and training that fit a log's habits, each with the fact that chose it.

The rules were compared on logs of different kinds (`docs/recall_experiments.md`): purchases that repeat, ratings that never do,
many and few events a day. They never look at what is to be evaluated.

Belongs here: the rules. Does not belong here: the facts (`log_habits.py`), tables, events and features
(`starter_config.py`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from dssm_assets.core.sources.log_habits import LogHabits

WANTED_EVENTS: Final = 200_000
"""Positive events that a training window should have."""
VALIDATION_EVENTS: Final = 3_000
"""Positive events that the validation days should have."""
MIN_NEW_EVENTS: Final = 100
"""Events on items new to their users without which the validation days could not be counted by new items."""
MIN_WINDOW: Final = 30
MAX_WINDOW: Final = 366
MAX_VALIDATION_FRAC: Final = 0.2
MAX_HISTORY: Final = 500
REPEATING: Final = 0.1
"""Fraction of repeated events from which on people come for the same items again."""
SHORT_LIVED: Final = 0.3
"""Fraction of events on items of the last week from which on items are news."""
OUTPUT_DIM: Final = 128
CODE_DIM: Final = 64
ITEM_DIM: Final = 64


@dataclass(frozen=True)
class Line:
    """One `key: value` of the file, and why."""

    key: str
    value: str
    reason: str


@dataclass(frozen=True)
class StarterSettings:
    """The lines of each section."""

    window: tuple[Line, ...]
    statistics: tuple[Line, ...]
    model: tuple[Line, ...]
    training: tuple[Line, ...]
    evaluation: tuple[Line, ...]


def choose_settings(habits: LogHabits, log_days: int, items: int, code: str) -> StarterSettings:
    """Returns the settings for a log.

    Args:
        habits: of its positive events.
        log_days: from its first day to its last.
        items: rows of the item table.
        code: the embedding name of the item's closed-form code.
    """
    window = window_days(habits, log_days)
    validation = validation_days(habits, window)
    length = min(MAX_HISTORY, max(20, habits.long_history_events))
    return StarterSettings(
        window=(_window_line(habits, window, log_days),),
        statistics=(
            Line(
                "embedding_dim",
                f"{{item: {ITEM_DIM}, {code}: {CODE_DIM}}}",
                "wide enough to tell items apart, for any number of them",
            ),
        ),
        model=_model_lines(habits, window, validation, length, code),
        training=_training_lines(habits, window, validation, code),
        evaluation=(_recent_line(habits, window),),
    )


def window_days(habits: LogHabits, log_days: int) -> int:
    """Returns the training days: enough for `WANTED_EVENTS`, at least 30 where there are as many, one day left to score.

    By hand: 2,500 events a day need 80 days; a log of 60 days has 59. Of items that live for days, old events say little: 30.
    """
    wanted = MIN_WINDOW if habits.young_frac >= SHORT_LIVED else math.ceil(WANTED_EVENTS / max(habits.events_per_day, 1.0))
    return max(1, min(max(MIN_WINDOW, wanted), MAX_WINDOW, log_days - 1))


def validation_days(habits: LogHabits, window: int) -> int:
    """Returns the last days of the window on which epochs and prior are chosen; 0 if the window is too short for any.

    By hand: 600 events a day need 5 days for 3,000; a window of 12 days spares 2.
    """
    wanted = math.ceil(VALIDATION_EVENTS / max(habits.events_per_day, 1.0))
    return min(wanted, int(window * MAX_VALIDATION_FRAC))


def _window_line(habits: LogHabits, window: int, log_days: int) -> Line:
    facts = f"{habits.events_per_day:,.0f} positive events on a day of the last month; the log has {log_days} days"
    if habits.young_frac >= SHORT_LIVED:
        facts = f"{habits.young_frac:.0%} of recent events are on items of the last week: older days say little"
    return Line("days", str(window), f"training days before each evaluation day. {facts}")


def _recent_line(habits: LogHabits, window: int) -> Line:
    half_life = habits.half_life_days
    if half_life is None:
        return Line("recent_days", str(min(7, window)), "popularity of all days predicts the last days best")
    days = max(1, min(window, round(2 * half_life)))
    return Line("recent_days", str(days), f"popularity that halves in {half_life:g} days predicts the last days best")


def _model_lines(habits: LogHabits, window: int, validation: int, length: int, code: str) -> tuple[Line, ...]:
    repeats = habits.repeat_frac >= REPEATING
    by_day = habits.known_frac >= 0.5
    lengths = f"half of the active users have more than {habits.history_events:,} events, a tenth more than {habits.long_history_events:,}"
    poolings = (
        f"[{{kind: root, length: {length}}}, {{kind: mean, length: {min(50, length)}}}, "
        f"{{kind: recency, length: {min(50, length)}, scale: 10}}]"
    )
    day_reason = f"{habits.known_frac:.0%} of recent events are by users with an earlier day"
    lines = [
        Line("output_dim", str(OUTPUT_DIM), f"{OUTPUT_DIM - CODE_DIM} learned dimensions and {CODE_DIM} of codes"),
        Line("frozen_embedding", code, "codes of items by co-occurrence, in closed form, next to what the towers learn"),
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
        Line("num_sample", "1024", "negatives beside those of the batch"),
    ]
    if habits.new_per_day * max(1, validation) >= MIN_NEW_EVENTS:
        reason = (
            f"about {habits.new_per_day:,.0f} events a day are on items new to their users; own items are left to own history"
        )
        lines.append(Line("targets", "new", reason))
    if validation:
        reason = "popularity is added as far as it helps on the validation days, that of two hours or of 90 days"
        lines.append(Line("prior", "true", reason))
    if repeats:
        reason = f"{habits.repeat_frac:.0%} of recent events repeat an item of an earlier day: own items are no negatives"
        lines.append(Line("user_positive_mask", "true", reason))
    if window >= 2 * MIN_WINDOW:
        lines.append(Line("recency_half_life_days", str(window // 2), "a long window: its last days weigh more"))
    return tuple(lines)


def _training_lines(habits: LogHabits, window: int, validation: int, code: str) -> tuple[Line, ...]:
    events = habits.events_per_day * window
    epochs = 10 if events <= 500_000 else 4 if events <= 5_000_000 else 2
    batch = 512 if events <= 500_000 else 1024
    rate = "0.001" if events <= 100_000 else "0.002"
    codes = f"{{embedding: {code}, score_std: 0.2, ridge: 30, popularity_exponent: 0.25, user_exponent: 0.5}}"
    lines = [
        Line("epochs", str(epochs), f"at most; about {events:,.0f} positive events in a window"),
        Line("batch_size", str(batch), "by the same number"),
        Line("embedding_optimiser", "adam", "a first moment helps where rows are read often"),
        Line("learning_rate", rate, "of the layers"),
        Line("embedding_learning_rate", rate, "of the tables"),
        Line("weight_average", "0.998", "the moving average is published: epochs differ less"),
        Line(
            "svd_init",
            codes,
            "the codes: near a regression of histories on themselves (EASE), as strong as the towers' cosines",
        ),
    ]
    if validation:
        reason = f"the last days of the window choose the number of epochs and the prior: about {habits.events_per_day * validation:,.0f} events"
        lines.append(Line("validation_days", str(validation), reason))
    return tuple(lines)
