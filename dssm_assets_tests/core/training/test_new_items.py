"""Which samples are of items new to their users: by hand, against a loop, and in a fit that learns from nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.core.config.model import Model, Targets
from dssm_assets.core.models.tower_spec import tower_spec
from dssm_assets.core.training import data as module
from dssm_assets.core.training.data import find_new_items
from dssm_assets.core.training.validation import ValidationSet
from dssm_assets_tests.core.training.worlds import EVENTS, FEATURES, SMALL_MODEL, USERS, world

SPEC = tower_spec(FEATURES, Model(**SMALL_MODEL))


def test_new_items_by_hand() -> None:
    events = np.array([7, 8, 7, 9], np.int32)
    starts, items = np.zeros(6, np.int64), np.array([7, 8, 9, 7, 8, 9])
    found = find_new_items(starts, np.array([2, 2, 2, 1, 1, 1]), items, lambda at: events[at])
    assert found.tolist() == [False, False, True, False, True, True]


def test_a_sample_without_history_is_of_a_new_item() -> None:
    found = find_new_items(np.array([0, 5]), np.array([0, 5]), np.array([1, 2]), lambda at: np.zeros(len(at), np.int32))
    assert found.tolist() == [True, True]


@given(
    users=st.lists(st.lists(st.integers(-1, 4), max_size=6), min_size=1, max_size=5),
    samples=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 6)), max_size=12),
    most=st.integers(1, 9),
)
def test_new_items_are_those_of_a_loop(users: list[list[int]], samples: list[Any], most: int) -> None:
    events = np.array([item for one in users for item in one], np.int32)
    bounds = np.cumsum([0, *map(len, users)])
    rows = [(user % len(users), item, min(seen, len(users[user % len(users)]))) for user, item, seen in samples]
    starts = np.array([bounds[user] for user, _, _ in rows], np.int64)
    ends = starts + np.array([seen for _, _, seen in rows], np.int64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_MAX_EVENTS", most)
        found = find_new_items(starts, ends, np.array([item for _, item, _ in rows], np.int64), lambda at: events[at])
    assert found.tolist() == [item not in users[user][:seen] for user, item, seen in rows]


def test_targets_new_are_the_first_of_each_user_and_item() -> None:
    tables = world()
    data = tables.data(SPEC)
    items = tables.samples.column("item_index").to_pylist()
    first = [k for k, item in enumerate(items) if item not in items[k - k % EVENTS : k]]
    assert data.rows_of_days(0, 2, targets=Targets.NEW).tolist() == first
    assert 0 < len(first) < USERS * EVENTS


def test_validation_of_new_targets_leaves_out_what_was_seen() -> None:
    tables = world()
    data = tables.data(SPEC)
    items, days = (tables.samples.column(name).to_numpy() for name in ("item_index", "day"))
    found = ValidationSet(data, 1, Targets.NEW)
    for place, user in enumerate(found.user_index.tolist()):
        truth, excluded = (set(sets.select_users(np.array([place])).items.tolist()) for sets in (found.truth, found.excluded))
        own = np.arange(user * EVENTS, (user + 1) * EVENTS)
        seen, of_day = (set(items[own][days[own] == day].tolist()) for day in (0, 1))
        assert (truth, excluded) == (of_day - seen, seen)
        assert truth
