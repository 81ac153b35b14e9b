"""Visits: kept together, read once, and the same to every sample as if it came alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.core.columns import USER_ROW
from dssm_assets.core.model_config import Model
from dssm_assets.core.models.tower_feature import Side
from dssm_assets.core.models.tower_spec import tower_spec
from dssm_assets.core.samples.specs import HISTORY_END, USER_INDEX
from dssm_assets.core.training.batches import epoch_batches
from dssm_assets.core.training.loop import FitResult, fit
from dssm_assets.core.training.visits import visit_of, visit_order
from dssm_assets.core.training_config import Training
from dssm_assets_tests.core.training import worlds


def test_samples_of_one_user_row_and_past_are_one_visit() -> None:
    keys = {
        USER_INDEX: np.array([3, 1, 3, 3, -1, -1], np.int32),
        USER_ROW: np.array([7, 5, 7, 7, 0, 9], np.int32),
        HISTORY_END: np.array([40, 10, 40, 41, 0, 0], np.int64),
    }
    first, visit = visit_of(keys)
    assert len(first) == 5
    assert visit[0] == visit[2]
    assert len(set(visit.tolist())) == 5
    assert first[visit].tolist() == [0, 1, 0, 3, 4, 5]


@given(st.lists(st.integers(0, 6), min_size=1, max_size=40), st.integers(0, 5))
def test_an_order_has_every_sample_once_and_no_visit_in_two_places(values: list[int], seed: int) -> None:
    visit = np.unique(values, return_inverse=True)[1].reshape(-1).astype(np.int64)
    order = visit_order(visit, np.random.default_rng(seed))
    assert sorted(order.tolist()) == list(range(len(values)))
    assert int(np.count_nonzero(np.diff(visit[order]))) == len(set(values)) - 1
    assert all(np.all(np.diff(np.flatnonzero(visit[order] == v)) == 1) for v in set(values))


def _fitted(*, group_visits: bool, **changes: Any) -> FitResult:
    """Returns towers fitted to a world whose users have two visits of four samples each, in one batch a epoch."""
    world = worlds.world()
    ends = pa.array(np.arange(80, dtype=np.int64) // 4 * 4)
    place = world.samples.column_names.index(HISTORY_END)
    world = replace(world, samples=world.samples.set_column(place, HISTORY_END, ends))
    features = [feature for feature in worlds.FEATURES if feature.side is not Side.CONTEXT or changes.get("context")]
    model = Model(**{**worlds.SMALL_MODEL, "dropout": 0.0, "num_sample": 0, **changes.get("model", {})})
    training = Training(epochs=3, batch_size=100, num_threads=1, group_visits=group_visits)
    spec = tower_spec(features, model)
    return fit(world.data(spec), spec, model=model, training=training, seed=2, progress=lambda _: None, now=worlds.StepClock())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"model": {"user_positive_mask": True, "loss": "sigmoid"}},
        {"model": {"num_interests": 2, "poolings": [{"kind": "attention", "length": 5}]}},
        {"model": {"history": "others"}},
        {"context": True, "model": {"context_dropout": 0.0}},
    ],
)
def test_towers_learn_what_they_learn_sample_by_sample(changes: dict[str, Any]) -> None:
    joined, alone = (_fitted(group_visits=whether, **changes) for whether in (True, False))
    np.testing.assert_allclose(joined.loss_by_step, alone.loss_by_step, rtol=2e-4)
    assert joined.loss_by_step[-1] < joined.loss_by_step[0]


def test_the_user_tower_runs_once_a_visit() -> None:
    world = worlds.world()
    model = Model(**{**worlds.SMALL_MODEL, "num_sample": 0})
    spec = tower_spec([feature for feature in worlds.FEATURES if feature.side is not Side.CONTEXT], model)
    ends = pa.array(np.arange(80, dtype=np.int64) // 4 * 4)
    place = world.samples.column_names.index(HISTORY_END)
    data = replace(world, samples=world.samples.set_column(place, HISTORY_END, ends)).data(spec)
    training = Training(batch_size=20, group_visits=True)
    batches = list(epoch_batches(data, np.arange(80), model=model, training=training, seed=5, epoch=0))
    assert [(len(batch), len(batch.user)) for batch in batches] == [(20, 5)] * 4
