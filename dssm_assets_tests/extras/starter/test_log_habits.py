"""Habits of small logs by hand, and that blocks and sampling of users do not change them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from dssm_assets.extras.starter import log_habits
from dssm_assets.extras.starter.log_habits import HabitScan, LogHabits
from dssm_assets.extras.starter.recipe import Recipe
from dssm_assets.extras.starter.starter_settings import choose_recipe

HOUR, DAY = 3_600_000, 86_400_000
Row = tuple[str, int, float]
"""User, item, day with its fraction."""


def _habits(rows: list[Row], *, block: int = 1000, max_events: int = 1000) -> LogHabits | None:
    scan = HabitScan(max_events)
    for begin in range(0, len(rows), block):
        users, items, times = zip(*rows[begin : begin + block], strict=True)
        time_ms = pa.array((np.array(times) * DAY).astype(np.int64))
        days = pa.array(np.floor(times).astype(np.int32)).cast(pa.date32())
        scan.observe(pa.array(users), pa.array(items), time_ms, days)
    return scan.habits()


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
    assert found is not None
    assert found.events == 8
    assert found.events_per_day == 3  # days with 2, 3 and 3 events
    assert (found.history_events, found.long_history_events) == (3, 3)  # users a and b have 3, c has 1: median 3, 90% 3
    # Known: a on day 3, b and a on day 9. Repeated: a takes 1 again on day 3; b takes it twice on one day, which is no repeat.
    assert found.known_frac == pytest.approx(3 / 8)
    assert found.repeat_frac == pytest.approx(1 / 8)
    # New to their users: 1 and 2 of a and on day 3 both of b (one day) on the first two of the three days, then all three.
    assert found.new_per_day == pytest.approx(7 / 3)
    assert found.item_spread_days is None, "too few meetings"


def test_spread_of_first_meetings_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_habits, "MIN_MEETINGS", 2)
    # Item 1 is met on days 0 and 1, item 2 on days 3 and 5. That a meets item 1 again counts for neither.
    found = _habits([("a", 1, 0.0), ("b", 1, 1.0), ("a", 2, 3.0), ("b", 2, 5.0), ("a", 1, 0.5), ("a", 1, 9.0)])
    assert found is not None
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
    found = _habits(_generated(kind, days), max_events=100_000)
    assert found is not None
    assert choose_recipe(found)[0] is kind, choose_recipe(found)


def test_only_the_last_month_counts_for_fractions() -> None:
    old = [("a", 1, float(day)) for day in range(10)]  # repeats every day
    found = _habits([*old, ("b", 2, 99.0), ("b", 3, 100.0)])
    assert found is not None
    assert (found.repeat_frac, found.known_frac, found.events_per_day) == (0.0, 0.5, 1.0)


def test_half_life_follows_what_was_popular_lately() -> None:
    # Every day has 60 items of its own, six times each; half of the next day's events are on them. 50 fit into the list, so
    # older items only take their places: the shortest half-life wins.
    rows = [
        (f"u{event}", 60 * (day - event % 2) + event // 2 % 60, day + event / 1000)
        for day in range(1, 9)
        for event in range(360)
    ]
    found = _habits(rows, max_events=10_000)
    assert found is not None
    assert found.half_life_days == 0.25
    # The same 60 items every day, some a little more often than others: more days tell them apart better.
    rng = np.random.default_rng(0)
    steady = [(f"u{e}", int(rng.zipf(1.5)) % 300, day + e / 1000) for day in range(9) for e in range(300)]
    found = _habits(steady, max_events=10_000)
    assert found is not None
    assert found.half_life_days is None or found.half_life_days >= 3


def test_blocks_do_not_matter() -> None:
    rng = np.random.default_rng(5)
    rows = [(f"u{u}", int(i), float(t)) for u, i, t in zip(*rng.integers(0, [[30], [20], [40]], (3, 400)), strict=True)]
    assert _habits(rows, block=7) == _habits(rows)


def test_a_sample_of_users_has_about_the_same_habits_and_exact_counts() -> None:
    rng = np.random.default_rng(6)
    rows = [(f"u{u}", int(i), float(t)) for u, i, t in zip(*rng.integers(0, [[500], [50], [20]], (3, 8000)), strict=True)]
    whole, part = _habits(rows, max_events=10_000), _habits(rows, block=500, max_events=2000)
    assert whole is not None and part is not None
    assert part.events == whole.events == 8000
    assert part.events_per_day == whole.events_per_day
    assert part.repeat_frac == pytest.approx(whole.repeat_frac, abs=0.05)
    assert replace(part, repeat_frac=0.0) != replace(whole, repeat_frac=0.0)  # it was a sample


def test_missing_values_are_left_out_and_nothing_is_none() -> None:
    scan = HabitScan()
    assert scan.habits() is None
    days = pa.array([3, 3, None], pa.int32()).cast(pa.date32())
    scan.observe(pa.array(["a", None, "b"]), pa.array([1, 2, 3]), pa.array([1, 2, 3], pa.int64()), days)
    found = scan.habits()
    assert found is not None
    assert found.events == 1
