"""Settings of logs with given habits, by hand."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import replace

import duckdb
import numpy as np
import pyarrow as pa
import pytest
import yaml

from dssm_assets.core.config.model import Model
from dssm_assets.core.config.training import Training
from dssm_assets.extras.starter.log_table import LogHabits, PairDays, to_date, to_number
from dssm_assets.extras.starter.starter_config import fill_template
from dssm_assets.extras.starter.starter_settings import (
    DaysChoice,
    Recipe,
    StarterSettings,
    choose_days,
    choose_recipe,
    choose_settings,
    span_days,
    validation_days,
    window_days,
)

FIRST = dt.date(2020, 1, 1)


def _pairs(user: np.ndarray, item: np.ndarray, day: np.ndarray) -> PairDays:
    db = duckdb.connect()
    db.register("acts", pa.table({"u": user, "i": item, "d": day}))
    return PairDays.read(db)


def _log(habits: LogHabits, events: Sequence[int]) -> LogHabits:
    """Returns the habits with events on every day from FIRST on: each user takes seven items in turn."""
    days = to_number(FIRST) + np.arange(len(events))
    users = np.minimum(events, 40)
    user, day = np.concatenate([np.arange(count) for count in users]), np.repeat(days, users)
    pairs = _pairs(user, (user + day) % 7, day)
    return replace(habits, days=days, day_events=np.array(events), pairs=pairs)


_NONE = np.zeros(0, np.int64)
SHOP = _log(
    LogHabits(
        events_per_day=2500,
        history_events=80,
        long_history_events=340,
        known_frac=0.9,
        repeat_frac=0.4,
        item_spread_days=None,
        spread_days=0.0,
        new_per_day=1400,
        days=_NONE,
        day_events=_NONE,
        pairs=_pairs(_NONE, _NONE, _NONE),
    ),
    [2500] * 400,
)


NEWS = replace(SHOP, item_spread_days=1.3, spread_days=8.7)


def _config(found: StarterSettings) -> dict[str, dict[str, object]]:
    """Returns the filled template."""
    filled: dict[str, dict[str, object]] = yaml.safe_load("\n".join(fill_template(found.recipe, {**found.values, "k": [10]})))
    return filled


def _last(habits: LogHabits) -> dt.date:
    return to_date(habits.days[-1])


def _settings(habits: LogHabits, recipe: Recipe | None = None) -> StarterSettings:
    return choose_settings(habits, FIRST, items=5000, recipe=recipe)


def _window(habits: LogHabits, recipe: Recipe = Recipe.RETAIL) -> int:
    return window_days(habits, habits.pairs.count_warm(1), recipe, FIRST, _last(habits))


def test_window_holds_enough_events() -> None:
    assert _window(SHOP) == 80  # 200,000 / 2,500
    assert _window(SHOP, Recipe.NEWS) == 30
    assert _window(_log(SHOP, [100_000] * 100)) == 30
    # The first half of the log has nearly all events: 10 days of them and the 50 of the other half.
    assert _window(_log(SHOP, [20_000] * 50 + [40] * 50)) == 60


def test_window_leaves_days_to_evaluate() -> None:
    # Of 12 days three are left: the longest window of the series that does. Of 6 too, of 4 two.
    assert [_window(_log(SHOP, [100] * days)) for days in (12, 6, 4)] == [9, 3, 2]
    # Of 400 days 28.
    assert _window(_log(SHOP, [100] * 400)) <= 400 - 28
    # Only the first 100 days have 30 pairs: some of them must be left.
    days = _log(SHOP, [100] * 100 + [1] * 100)
    window = _window(days)
    assert len(days.pairs.count_warm(1).evaluation_days(window, FIRST, _last(days)).days) >= 28
    # Where no day has enough, a quarter of the days is left.
    assert _window(_log(SHOP, [1] * 40)) == 30
    assert _window(_log(SHOP, [1, 1])) == 1


@pytest.mark.parametrize(("days", "start"), [(400, 0), (1500, 0), (1501, 771), (8000, 7270)])
def test_calendar_of_many_years_is_its_last_two(days: int, start: int) -> None:
    habits = _log(SHOP, [10] * days)
    found = _settings(habits)
    assert (found.start - FIRST).days == start
    assert found.evaluation_days.window <= days - start - 28


def test_recipe_follows_the_habits_and_can_be_named() -> None:
    assert choose_recipe(SHOP)[0] is Recipe.RETAIL
    assert choose_recipe(NEWS)[0] is Recipe.NEWS
    assert choose_recipe(replace(NEWS, spread_days=1.5))[0] is Recipe.RETAIL, "a log of five days, in which all is short"
    assert choose_recipe(replace(NEWS, item_spread_days=4.0))[0] is Recipe.RETAIL
    assert choose_recipe(replace(SHOP, repeat_frac=0.0))[0] is Recipe.VIDEO
    assert choose_recipe(replace(SHOP, repeat_frac=0.0, history_events=3))[0] is Recipe.SPARSE
    named = _settings(SHOP, Recipe.NEWS)
    assert named.recipe is Recipe.NEWS and named.evaluation_days.window == 30
    assert named.recipe_reason.startswith("as asked for; by its habits the log is retail, because 40%")


def test_validation_days_hold_enough_events_and_leave_most_of_the_window() -> None:
    quiet = _log(SHOP, [600] * 100)
    assert validation_days(quiet, 80) == 5
    assert validation_days(quiet, 12) == 2
    assert (validation_days(quiet, 3), validation_days(quiet, 1)) == (1, 0)
    assert validation_days(_log(SHOP, [2] * 4_000), 4_000) == 365, "the most that the configuration takes"


def test_every_choice_is_valid_and_has_a_reason() -> None:
    for habits in (SHOP, replace(SHOP, known_frac=0.1, repeat_frac=0.0), NEWS):
        found = _settings(habits)
        Model.model_validate(_config(found)["model"])
        Training.model_validate(_config(found)["training"])
        lines = list(fill_template(found.recipe, {**found.values, "k": [10]}))
        assert all("    # " in line for line in lines if line.startswith("  "))


_days = np.repeat(to_number(FIRST) + np.arange(400), 400)
CROWD = replace(SHOP, pairs=_pairs(np.tile(np.arange(400), 400), np.zeros(160_000, np.int64), _days))
"""400 warm pairs a day."""
ONCE, EVENTS = replace(SHOP, repeat_frac=0.01), replace(SHOP, known_frac=0.2)


@pytest.mark.parametrize(
    ("habits", "key", "value"),
    [
        (SHOP, "model.user_positive_mask", True),
        (ONCE, "model.user_positive_mask", None),
        (SHOP, "model.targets", "new"),
        # A window of 80 days validates on 2: 49 events a day are too few.
        (replace(SHOP, new_per_day=49), "model.targets", None),
        (replace(SHOP, long_history_events=3), "model.history_length", 20),
        (SHOP, "model.history_length", 340),
        (replace(SHOP, long_history_events=9000), "model.history_length", 500),
        (EVENTS, "model.history_length", 100),
        (SHOP, "model.history", "day"),
        (EVENTS, "model.history", "event"),
        (SHOP, "training.group_sessions", True),
        (EVENTS, "training.group_sessions", None),
        # Half a million samples are read: 80 days of 2,500 events; then 28 of 10, of which 2 are validated on.
        (SHOP, "training.epochs", 3),
        (_log(SHOP, [50] * 40), "training.epochs", 20),
        (_log(SHOP, [100_000] * 100), "training.epochs", 2),
        (SHOP, "model.output_dim", 128),
        (SHOP, "model.prior", True),
        (SHOP, "training.validation_days", 2),
        (_log(SHOP, [100] * 2), "model.prior", None),  # a window of one day spares none
        (SHOP, "evaluation.span_days", None),
        (_log(SHOP, [10] * 200), "evaluation.span_days", 7),
        # Days with 40 warm pairs: 50 days for 2,000, at most 28 are read. With 2,500 a week is plenty.
        (_log(SHOP, [40] * 100), "channels.held_out_days", 28),
        (CROWD, "channels.held_out_days", 7),
    ],
)
def test_settings_follow_the_habits(habits: LogHabits, key: str, value: object) -> None:
    section, _, name = key.partition(".")
    config = _config(_settings(habits))
    assert config[section].get(name) == value
    model = Model.model_validate(config["model"])
    assert model.history_poolings[0].length == model.history_length


@pytest.mark.parametrize(("items", "width"), [(20, 8), (300, 32), (511, 56), (512, 64), (10_000_000, 64)])
def test_widths_follow_the_corpus_up_to_half_of_the_vectors(items: int, width: int) -> None:
    found = choose_settings(SHOP, FIRST, items=items)
    assert _config(found)["statistics"] == {"embedding_dim": {"item": width, "item_code": width}}
    assert _config(found)["model"]["output_dim"] == 2 * width


def test_few_pairs_are_evaluated_over_several_days() -> None:
    assert [span_days(1, pairs, 20, 100) for pairs in (30, 29, 10, 1, 0)] == [1, 5, 12, 25, 1]
    assert [span_days(1, 10, 20, left) for left in (30, 3)] == [7, 1]
    # Twelve days with enough pairs are enough; with a sixth of those that they should have, they are made six times as many.
    assert [span_days(12, pairs, 40, 400) for pairs in (60, 20, 1)] == [12, 72, 90]
    # The last evaluation day begins the last seven days: a quarter of the 28 that the window leaves.
    assert _settings(_log(SHOP, [10] * 200)).evaluation_days.shown == FIRST + dt.timedelta(200 - 7)


def test_few_users_are_evaluated_over_several_days_however_many_pairs_they_have() -> None:
    assert [span_days(1, 500, users, 100) for users in (20, 19, 8, 2)] == [1, 3, 5, 20]
    # Three users with 40 pairs each, every day: 14 days for 40 users, of which a quarter of the 28 that are left is 7.
    days = np.repeat(np.arange(200), 120)
    pairs = _pairs(np.tile(np.arange(120) // 40, 200), np.tile(np.arange(120) % 40, 200), to_number(FIRST) + days)
    found = _settings(replace(_log(SHOP, [120] * 200), pairs=pairs))
    assert [found.values[name] for name in ("span_days", "pairs", "users")] == [7, "120", "3"]


def test_pairs_that_only_the_span_itself_knows_do_not_count() -> None:
    """Each day a new user takes 20 items, and 20 others on the next day: of a span only the user of the day before is warm.

    Five items of every user, 400 days later, make spans of seven days warm, 55 pairs each, if the window reaches so far back.
    """
    days = np.arange(1400)
    begun, later = np.repeat(days, 20), np.repeat(days[:-400], 5)
    user = np.concatenate([begun, begun, later])
    day = np.concatenate([begun, begun + 1, later + 400])
    item = np.concatenate([np.tile(np.arange(40).reshape(2, 20), 1400).ravel(), np.tile(np.arange(5), 1000)])

    def choose(log: np.ndarray) -> DaysChoice:
        pairs = _pairs(user[log], item[log], to_number(FIRST) + day[log])
        return choose_days(replace(_log(SHOP, [40] * (int(day[log].max()) + 1)), pairs=pairs), Recipe.VIDEO, FIRST)

    found = choose(day < 1400)
    assert (found.start, found.span, found.pairs, found.users) == (FIRST, 7, 25, 2)
    window = found.days.window
    assert (window > 400, len(found.days.days)) == (True, 1400 - window - 6)
    assert choose(day < 390).days.days == (), "20 pairs are too few, however long the span"
