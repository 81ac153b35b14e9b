"""Which past a sample sees: never its own item by `others`, never its own event at all, and cut as it is told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dssm_assets.core.model_config import History, HistoryCut, Model
from dssm_assets.core.models.bags import offsets_of
from dssm_assets.core.models.tower_spec import tower_spec
from dssm_assets.core.training.batches import Batch, epoch_batches
from dssm_assets.core.training.history_cut import events_of_others, kept_lengths, oldest
from dssm_assets.core.training.train_data import TrainData
from dssm_assets.core.training_config import Training
from dssm_assets_tests.core.training.worlds import EVENTS, FEATURES, SMALL_MODEL, SMALL_TRAINING, World, world

LONG = {**SMALL_MODEL, "history_length": 100, "context_dropout": 0.0}


def batch_of(tables: World, rows: Any = None, epoch: int = 0, **changes: Any) -> tuple[np.ndarray[Any, Any], Batch]:
    """Returns the samples of the one batch of an epoch, and the batch."""
    model = Model(**{**LONG, **changes})
    data = tables.data(tower_spec(FEATURES, model))
    chosen = np.arange(data.num_samples) if rows is None else rows
    training = Training(**{**SMALL_TRAINING, "batch_size": 1000})
    (batch,) = epoch_batches(data, chosen, model=model, training=training, seed=3, epoch=epoch)
    return chosen[np.random.default_rng([3, epoch, 0]).permutation(len(chosen))], batch


def pasts(batch: Batch) -> list[list[int]]:
    """Returns the item index of every event that each row's tower reads: its embedding index less 2."""
    bag = batch.user.bags[-1]
    return [(part - 2).tolist() for part in np.split(bag.values, bag.offsets[1:-1])]


def columns(tables: World) -> tuple[np.ndarray[Any, Any], ...]:
    return tuple(tables.samples.column(name).to_numpy() for name in ("item_index", "user_index", "event_time_ms"))


@pytest.mark.parametrize("seed", range(5))
def test_others_are_all_of_the_users_events_but_those_of_the_own_item(seed: int) -> None:
    tables = world(seed)
    item, user, _ = columns(tables)
    order, batch = batch_of(tables, history="others")
    repeats = 0
    for row, past in zip(order, pasts(batch), strict=True):
        everything = item[user == user[row]].tolist()
        assert past == [other for other in everything if other != item[row]]
        repeats += everything.count(item[row]) > 1
    assert repeats > 10  # a world of repeats: what is left out is every event of the item, not the sample's alone
    assert batch.user.is_empty_history is not None
    assert batch.user.is_empty_history.tolist() == [float(not past) for past in pasts(batch)]


@pytest.mark.parametrize("history", ["event", "day"])
def test_an_own_item_in_the_past_was_taken_earlier(history: str) -> None:
    tables = world()
    item, user, time = columns(tables)
    order, batch = batch_of(tables, history=history)
    seen_again = 0
    for row, past in zip(order, pasts(batch), strict=True):
        assert past == item[(user == user[row]) & (time < time[row])].tolist()
        seen_again += item[row] in past
    assert seen_again > 0


def test_others_of_a_part_of_the_window_know_nothing_of_the_rest() -> None:
    tables = world()
    item, user, _ = columns(tables)
    day = tables.samples.column("day").to_numpy()
    order, batch = batch_of(tables, np.flatnonzero(day == 0), history="others")
    for row, past in zip(order, pasts(batch), strict=True):
        assert past == [other for other in item[(user == user[row]) & (day == 0)].tolist() if other != item[row]]


def test_a_user_that_took_one_item_alone_has_no_others() -> None:
    tables = world()
    history = tables.history.set_column(0, "item_index", pa.array([3] * 80, pa.int32()))
    samples = tables.samples.set_column(0, "item_index", pa.array([3] * 80, pa.int32()))
    _, batch = batch_of(replace(tables, history=history, samples=samples), history="others")
    assert pasts(batch) == [[]] * 80
    assert batch.user.is_empty_history is not None
    assert batch.user.is_empty_history.tolist() == [1.0] * 80


@pytest.mark.parametrize("history", ["event", "others"])
def test_a_cut_keeps_the_oldest_part(history: str) -> None:
    tables = world()
    whole = pasts(batch_of(tables, history=history)[1])
    for frac in (0.0, 0.4, 1.0):
        cut = pasts(batch_of(tables, history=history, history_cut={"sample_frac": frac, "min_length_frac": 0.25})[1])
        assert all(past == full[: len(past)] for past, full in zip(cut, whole, strict=True))
        assert all(len(past) >= np.ceil(0.25 * len(full)) for past, full in zip(cut, whole, strict=True))
        shorter = np.mean([len(past) < len(full) for past, full in zip(cut, whole, strict=True) if len(full) > 3])
        assert (shorter == 0) if frac == 0 else shorter > frac / 3
        assert frac == 1.0 or shorter < 0.6


def test_another_epoch_cuts_elsewhere() -> None:
    changes: dict[str, Any] = {"history_cut": {"sample_frac": 1.0, "min_length_frac": 0.0}}
    lengths = []
    for epoch in (0, 0, 1):
        order, batch = batch_of(world(), epoch=epoch, **changes)
        lengths.append([len(past) for _, past in sorted(zip(order.tolist(), pasts(batch), strict=True))])
    assert lengths[0] == lengths[1] != lengths[2]


def test_kept_lengths_by_hand_and_by_law() -> None:
    lengths = np.full(20_000, 8)
    assert kept_lengths(lengths, HistoryCut(sample_frac=0.0), np.random.default_rng(1)).tolist() == lengths.tolist()
    kept = kept_lengths(lengths, HistoryCut(sample_frac=1.0, min_length_frac=0.75), np.random.default_rng(1))
    # 8 u for u even between .75 and 1 lies between 6 and 8: rounded up it is 7 or 8, each half of the time.
    assert np.bincount(kept, minlength=9)[7:] / 20_000 == pytest.approx([0.5, 0.5], abs=0.02)
    half = kept_lengths(lengths, HistoryCut(sample_frac=0.5, min_length_frac=0.75), np.random.default_rng(1))
    assert (half == 7).mean() == pytest.approx(0.25, abs=0.02)
    assert kept_lengths(np.zeros(5, np.int64), HistoryCut(sample_frac=1.0), np.random.default_rng(1)).tolist() == [0] * 5


@settings(deadline=None)
@given(
    users=st.lists(st.lists(st.integers(0, 4), max_size=6), min_size=1, max_size=5),
    rows=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 6)), max_size=8),
)
def test_events_row_by_row(users: list[list[int]], rows: list[tuple[int, int, int]]) -> None:
    items = np.array([item for user in users for item in user], np.int32)
    bounds = offsets_of(np.array([len(user) for user in users]))
    chosen = [user % len(users) for user, _, _ in rows]
    own = np.array([item for _, item, _ in rows], np.int64)
    positions, offsets = events_of_others(bounds[chosen], bounds[np.array(chosen, int) + 1], own, lambda at: items[at])
    expected = [[item for item in users[user] if item != own[row]] for row, user in enumerate(chosen)]
    assert np.diff(offsets).tolist() == [len(past) for past in expected]
    assert items[positions].tolist() == [item for past in expected for item in past]
    kept = np.minimum(np.diff(offsets), np.array([count for _, _, count in rows], np.int64))
    first, bounds_of_first = oldest(positions, offsets, kept)
    assert np.diff(bounds_of_first).tolist() == kept.tolist()
    assert items[first].tolist() == [item for past, n in zip(expected, kept, strict=True) for item in past[:n]]


def test_samples_with_too_little_before_are_not_trained_on() -> None:
    data: TrainData = world().data(tower_spec(FEATURES, Model(**SMALL_MODEL)))
    # The k-th sample of a user has k events before it; four of them a day.
    for least, kept in ((0, 8), (1, 7), (5, 3), (8, 0)):
        rows = data.rows_of_days(0, 2, min_history=least)
        assert rows.tolist() == [u * EVENTS + k for u in range(10) for k in range(8 - kept, 8)]
    assert data.rows_of_days(1, 2, min_history=5).tolist() == [u * EVENTS + k for u in range(10) for k in (5, 6, 7)]
    assert data.rows_of_days(0, 1).tolist() == [u * EVENTS + k for u in range(10) for k in range(4)]
    assert (data.num_days, len(data.rows_of_days(2, 9))) == (2, 0)


def test_every_history_is_known_to_the_configuration() -> None:
    assert {str(kind) for kind in History} == {"event", "day", "others"}
