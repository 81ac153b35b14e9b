"""Samples that share passes of the encoder learn what single samples learn, and none of them sees itself or what comes later."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from dssm_assets.core.config.model import Model
from dssm_assets.core.config.training import Training
from dssm_assets.core.models.tower_spec import TowerSide, tower_spec
from dssm_assets.core.models.two_tower import TwoTower
from dssm_assets.core.training.batches import Batch, epoch_batches
from dssm_assets.core.training.data import TrainData
from dssm_assets.core.training.fit_report import FitResult
from dssm_assets.core.training.loop import fit
from dssm_assets_tests.core.training.worlds import EVENTS, FEATURES, SMALL_MODEL, USERS, world

COUNT = USERS * EVENTS


def _model(length: int = EVENTS, *others: dict[str, Any], **changes: Any) -> Model:
    poolings = [{"kind": "sequence", "length": length, "dropout": 0.0}, *others]
    return Model.model_validate({**SMALL_MODEL, "dropout": 0.0, "num_sample": 0, "poolings": poolings, **changes})


def _data(model: Model) -> TrainData:
    return world().data(tower_spec(FEATURES, model))


def _batches(model: Model, size: int = 20, epoch: int = 0, **training: Any) -> list[Batch]:
    section = Training(batch_size=size, group_users=True, **training)
    return list(epoch_batches(_data(model), np.arange(COUNT), model=model, training=section, seed=5, epoch=epoch))


def _events_seen(batch: Batch) -> list[list[int]]:
    """Returns the embedding indices that each row's encoder sees."""
    own = batch.user.sequences[0].select_rows(np.arange(len(batch.user)))
    return [own.values[0][begin:end].tolist() for begin, end in zip(own.offsets[:-1], own.offsets[1:], strict=True)]


def _fitted(model: Model, **training: Any) -> FitResult:
    features = [feature for feature in FEATURES if feature.side is not TowerSide.CONTEXT or model.context_dropout == 0]
    spec, section = tower_spec(features, model), Training(epochs=3, batch_size=100, num_threads=1, **training)
    return fit(world().data(spec), model=model, training=section, seed=2)


@pytest.mark.parametrize(
    "model",
    [
        _model(),
        _model(50, {"kind": "root"}, {"kind": "attention"}, num_interests=2),
        _model(EVENTS, {"kind": "sequence", "length": 20, "num_heads": 1, "dropout": 0.0}, context_dropout=0.0, skip=True),
        _model(user_positive_mask=True, loss="sigmoid"),
        _model(3, history="leave_one_out"),
    ],
    ids=["alone", "with other poolings", "two encoders", "masks", "leave one out"],
)
@pytest.mark.parametrize("others", [{}, {"group_sessions": True}], ids=["", "sessions"])
def test_shared_passes_give_the_losses_of_single_samples(model: Model, others: dict[str, Any]) -> None:
    """All samples are one batch, and no past is longer than the pooling: only the passes differ."""
    grouped, single = _fitted(model, group_users=True, **others), _fitted(model)
    np.testing.assert_allclose(grouped.loss_by_step, single.loss_by_step, rtol=2e-4)
    assert grouped.loss_by_step[-1] < grouped.loss_by_step[0]


def test_a_pass_encodes_each_event_of_its_users_once() -> None:
    # A batch of 20 samples is two and a half users of 8 events; the event behind the last sample is not read.
    for batch in _batches(_model()):
        (events,) = batch.user.sequences
        assert len(batch.user) == len(events.last) == 20
        assert len(events.offsets) - 1 <= 4
        assert len(events.seconds) <= 4 * (EVENTS - 1)


def test_vectors_of_a_batch_are_those_of_its_samples_read_one_by_one() -> None:
    model = _model(EVENTS, {"kind": "mean"}, context_dropout=0.0)
    data = _data(model)
    towers = TwoTower(data.spec, torch.Generator().manual_seed(0))
    section, seen = Training(batch_size=20, group_users=True), []
    with torch.no_grad():
        for batch in epoch_batches(data, np.arange(COUNT), model=model, training=section, seed=5, epoch=0):
            seen.append(towers.user_vectors(batch.user))
        rows = _order(data, model)
        alone = towers.user_vectors(data.read_user_side(rows, data.read_keys(rows)))
    torch.testing.assert_close(torch.cat(seen), alone, atol=1e-5, rtol=1e-5)


def _order(data: TrainData, model: Model, epoch: int = 0) -> np.ndarray[Any, Any]:
    """Returns the samples of an epoch in its order: a sample is known by the time and the user it is read with."""
    section = Training(batch_size=COUNT, group_users=True)
    orders: list[Any] = []
    real = data.read_keys
    data.read_keys = lambda rows: (orders.append(rows), real(rows))[1]  # type: ignore[method-assign]
    list(epoch_batches(data, np.arange(COUNT), model=model, training=section, seed=5, epoch=epoch))
    data.read_keys = real  # type: ignore[method-assign]
    return np.asarray(orders[0])


@pytest.mark.parametrize("cut", [0.0, 0.6])
def test_samples_see_a_part_of_their_past_that_ends_with_it(cut: float) -> None:
    model = _model(3, history_cut={"sample_frac": cut, "min_length_frac": 0.0})
    items = world().history.column("h__item").to_numpy()
    starts_seen = set()
    for epoch in range(3):
        rows = _order(_data(model), model, epoch)
        seen = [events for batch in _batches(model, epoch=epoch) for events in _events_seen(batch)]
        for row, events in zip(rows.tolist(), seen, strict=True):
            past = items[row // EVENTS * EVENTS : row].tolist()
            assert len(events) <= 3
            assert bool(events) == bool(past) or cut
            if cut:
                assert any(past[end - len(events) : end] == events for end in range(len(past) + 1))
            else:
                assert past[len(past) - len(events) :] == events
        starts_seen.add(tuple(len(events) for _, events in sorted(zip(rows.tolist(), seen, strict=True), key=lambda p: p[0])))
    assert len(starts_seen) == 3  # windows move from epoch to epoch


def test_samples_of_a_window_are_neighbours() -> None:
    rows = _order(_data(_model()), _model())
    assert [len(set(part.tolist())) for part in np.split(rows // EVENTS, USERS)] != [EVENTS] * USERS
    users = rows[rows % EVENTS > 0] // EVENTS  # first samples have no past and stand alone
    assert np.count_nonzero(np.diff(users)) == USERS - 1


def test_without_an_encoder_the_order_is_that_of_single_samples() -> None:
    model = Model(**SMALL_MODEL, norm="batch")  # equal columns stay apart
    orders = []
    for group in (False, True):
        section = Training(batch_size=COUNT, group_users=group)
        (batch,) = epoch_batches(_data(model), np.arange(COUNT), model=model, training=section, seed=5, epoch=0)
        orders.append(batch.items.singles[:COUNT].tolist())
    assert orders[0] == orders[1]
