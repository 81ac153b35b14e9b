"""Windows without the events of some items: histories, samples, features."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pyarrow as pa

from dssm_assets.core.config.model import Model
from dssm_assets.core.models.tower_spec import tower_spec
from dssm_assets.core.training.data import TrainData
from dssm_assets_tests.benchmarks.held_out_items import choose_items, count_events, hold_out_items
from dssm_assets_tests.core.training.worlds import FEATURES, ITEMS, SMALL_MODEL, USERS, world


def tables() -> dict[str, pa.Table]:
    made = world()
    return {field.name: getattr(made, field.name) for field in fields(made)}


def test_a_fraction_of_the_items_with_events_is_chosen() -> None:
    events = np.array([0, 3, 1, 0, 2, 9])
    chosen = choose_items(events, 0.5, seed=1)
    assert chosen.sum() == 2
    assert not chosen[events == 0].any()
    assert (choose_items(events, 0.5, seed=1) == chosen).all()


def test_events_and_samples_of_held_out_items_are_gone_and_histories_still_fit() -> None:
    given = tables()
    is_held_out = np.isin(np.arange(ITEMS), [0, 7])
    found = hold_out_items(given, is_held_out)
    assert (count_events(found) == np.where(is_held_out, 0, count_events(given))).all()
    data = TrainData(tower_spec(FEATURES, Model(**SMALL_MODEL)), **found)  # checks that all histories are their users' own
    for row in range(data.num_samples):
        keys = data.read_keys(np.array([row]))
        user, time = int(keys["user_index"][0]), int(keys["event_time_ms"][0])
        old = given["history"].slice(user * 8, 8).to_pylist()
        expected = [event["item_index"] for event in old if event["event_time_ms"] < time and event["item_index"] not in (0, 7)]
        start, end = int(data.user_starts[user]), int(keys["history_end"][0])
        assert found["history"].column("item_index").to_pylist()[start:end] == expected
    assert not set(found["samples"].column("item_index").to_pylist()) & {0, 7}
    assert len(data.user_starts) == USERS


def test_held_out_items_have_the_features_of_items_without_events() -> None:
    items = pa.table(
        {
            "weight": [1.0, 1.0, 8.0],
            "item": pa.array([1, 1, 5], pa.int32()),
            "kind": pa.array([3, 4, 6], pa.int32()),
            "tags": [[1], [2], [3]],
        }
    )
    empty = {name: tables()[name].slice(0, 0) for name in ("samples", "users")}
    history = pa.table({"item_index": pa.array([2], pa.int32())})
    found = hold_out_items({**empty, "history": history, "items": items}, np.array([False, False, True]))["items"]
    # Both items without an event have weight 1 and id 1, but differ in kind.
    assert found.slice(2).to_pylist() == [{"weight": 1.0, "item": 1, "kind": 6, "tags": [3]}]
    assert found.slice(0, 2).equals(items.slice(0, 2))
