"""No sample's own event is in its history, and with leave_one_out not even its item: on purchases, ratings, a generated log.

The purchases are a slice of Online Retail that is part of the tests; a third of them are repeated. The licence of MovieLens
forbids that, so its test runs only if the environment variable DSSM_ASSETS_MOVIELENS names a folder with it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from dssm_assets.core.config.model import History, HistoryCut
from dssm_assets.core.config.training import Training
from dssm_assets.core.training.batches import epoch_batches
from dssm_assets_tests.core.training.logs import DAY_MS, Log, train_data, whole_history_model

RETAIL = Path(__file__).parents[2] / "fixtures" / "online_retail" / "behavior.parquet"
MOVIELENS = os.environ.get("DSSM_ASSETS_MOVIELENS", "")


def generated_log() -> Log:
    """Returns 30 users with repeated interactions with few items, many with equal timestamps."""
    rng = np.random.default_rng(5)
    times = np.sort(rng.integers(0, 6 * 24, 1500)) * (DAY_MS // 24)
    return Log(rng.integers(0, 30, 1500), rng.zipf(1.5, 1500) % 40, times)


def retail() -> Log:
    table = pq.read_table(RETAIL)
    return Log.from_table(table.filter(pc.equal(table["event"], "buy")).sort_by("event_time"))


def movielens() -> Log:
    return Log.from_table(pq.read_table(Path(MOVIELENS) / "behavior.parquet").sort_by("event_time"))


needs_movielens = pytest.mark.skipif(not MOVIELENS, reason="DSSM_ASSETS_MOVIELENS names no folder")
LOGS = pytest.mark.parametrize("log", [generated_log, retail, pytest.param(movielens, marks=needs_movielens)])


def keys_of(users: Any, items: Any) -> np.ndarray[Any, Any]:
    return np.asarray(users) * 100_000 + np.asarray(items)


def own_counts(log: Log, history: History) -> np.ndarray[Any, Any]:
    """Returns how often each event's item may be in its history: as often as before the event; with leave_one_out never."""
    if history is History.LEAVE_ONE_OUT:
        return np.zeros(len(log.items), np.int64)
    ends = log.times if history is History.EVENT else log.days * DAY_MS + log.times.min() // DAY_MS * DAY_MS
    keys, counts = keys_of(log.users, log.items), np.zeros(len(log.items), np.int64)
    order = np.lexsort((log.times, keys))
    for key_rows in np.split(order, np.flatnonzero(np.diff(keys[order])) + 1):
        counts[key_rows] = np.searchsorted(log.times[key_rows], ends[key_rows])
    return counts


@LOGS
@pytest.mark.parametrize("history", History)
@pytest.mark.parametrize("cut", [0.0, 0.7])
def test_own_item_is_in_history_only_from_earlier_events(log: Any, history: History, cut: float) -> None:
    events, training = log(), Training(batch_size=2048)
    model = whole_history_model(history, history_cut=HistoryCut(sample_frac=cut, min_length_frac=0.2))
    data, rows = train_data(events, model), np.arange(len(events.items))
    order = np.random.default_rng([1, 0, 0]).permutation(rows)
    allowed, read, place = own_counts(events, history), 0, 0
    for batch in epoch_batches(data, rows, model=model, training=training, seed=1, epoch=0):
        these = order[place : place + len(batch.user)]
        place += len(these)
        bag = batch.user.bags[0]
        history_row = np.repeat(np.arange(len(these)), np.diff(bag.offsets))
        own = np.bincount(history_row[bag.values - 1 == events.items[these][history_row]], minlength=len(these))
        assert (own <= allowed[these]).all()
        assert cut or (own == allowed[these]).all()
        read += len(bag.values)
    assert read > len(rows)  # there are histories that could be wrong


@LOGS
def test_leave_one_out_history_is_everything_else_of_the_user(log: Any) -> None:
    events = log()
    model, size = whole_history_model(History.LEAVE_ONE_OUT), len(log().items)
    data = train_data(events, model)
    (batch,) = epoch_batches(data, np.arange(size)[:3000], model=model, training=Training(batch_size=3000), seed=1, epoch=0)
    these = np.arange(size)[:3000][np.random.default_rng([1, 0, 0]).permutation(min(3000, size))]
    end = events.days[these].max()
    known = events.days <= end if len(these) < size else np.ones(size, bool)
    of_user = np.bincount(events.users[known], minlength=events.users.max() + 1)
    keys, counts = np.unique(keys_of(events.users, events.items)[known], return_counts=True)
    own = counts[np.searchsorted(keys, keys_of(events.users, events.items)[these])]
    assert np.diff(batch.user.bags[0].offsets).tolist() == (of_user[events.users[these]] - own).tolist()


def test_purchases_repeat() -> None:
    """The real log has repeats: without them no own item could be in a history by an earlier event."""
    events = retail()
    assert (own_counts(events, History.EVENT) > 0).mean() > 0.1
