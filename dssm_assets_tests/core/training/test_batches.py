"""What a batch holds: order, negatives, hidden context, masks and corrections."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from dssm_assets.core.errors import SchemaError
from dssm_assets.core.model_config import Model
from dssm_assets.core.models.tower_spec import tower_spec
from dssm_assets.core.training.batches import Batch, epoch_batches
from dssm_assets.core.training_config import Training
from dssm_assets.core.training_steps import batches_per_epoch
from dssm_assets_tests.core.training.worlds import EVENTS, FEATURES, SMALL_MODEL, SMALL_TRAINING, world

HOUR = 1  # place of the context feature among the user tower's single-valued features


def _batches(epoch: int = 0, seed: int = 1, **changes: Any) -> list[Batch]:
    model = Model(**{**SMALL_MODEL, **changes})
    data = world().data(tower_spec(FEATURES, model))
    rows, training = np.arange(data.num_samples), Training(**SMALL_TRAINING)
    return list(epoch_batches(data, rows, model=model, training=training, seed=seed, epoch=epoch))


def _items(batch: Batch) -> np.ndarray[Any, Any]:
    """Item index of each row of the item tower: its embedding index less 2."""
    return batch.items.singles[:, 0] - 2


def test_every_sample_once_per_epoch_in_an_order_of_seed_and_epoch() -> None:
    tables, batches = world(), _batches(context_dropout=0.0)
    assert [len(batch.user) for batch in batches] == [32, 32, 16]
    assert batches_per_epoch(80, Training(**SMALL_TRAINING)) == 3
    seen = np.concatenate([_items(batch)[: len(batch.user)] for batch in batches])
    assert sorted(seen.tolist()) == sorted(tables.samples.column("item_index").to_pylist())
    order = [seen.tolist()]
    for epoch, seed in ((0, 1), (1, 1), (0, 2)):
        order.append(np.concatenate([_items(b)[: len(b.user)] for b in _batches(epoch, seed)]).tolist())
    assert order[0] == order[1]
    assert order[1] != order[2]
    assert order[1] != order[3]


def test_an_epoch_of_half_the_samples_takes_others_each_time() -> None:
    half = Training(**SMALL_TRAINING, epoch_frac=0.5)
    assert batches_per_epoch(80, half) == 2  # 40 samples, rounded up to whole batches
    model = Model(**SMALL_MODEL)
    spec = tower_spec(FEATURES, model)
    data = world().data(spec)
    whole, first, second = (
        [b.item_index[:32].tolist() for b in epoch_batches(data, np.arange(80), model=model, training=t, seed=1, epoch=e)]
        for t, e in ((Training(**SMALL_TRAINING), 0), (half, 0), (half, 1))
    )
    assert first == whole[:2]
    assert first != second


@pytest.mark.parametrize("frac", [0.0, 0.5, 1.0])
def test_share_of_samples_without_context(frac: float) -> None:
    batches = _batches(context_dropout=frac)
    whole = _batches(context_dropout=0.0)
    hours = np.concatenate([batch.user.singles[:, HOUR] for batch in batches])
    known = np.concatenate([batch.user.singles[:, HOUR] for batch in whole]) > 0
    hidden = (hours == 0)[known].mean()
    assert hidden == pytest.approx(frac, abs=0.15)
    assert (hidden == frac) or 0 < frac < 1
    assert all((a.user.singles[:, 0] == b.user.singles[:, 0]).all() for a, b in zip(batches, whole, strict=True))
    if frac == 1.0:
        assert all(len(batch.user.bags[1].values) == 0 for batch in batches)
        assert all(len(batch.user.bags[0].values) > 0 for batch in batches)


def test_no_samples_are_refused() -> None:
    model = Model(**SMALL_MODEL)
    data, none = world().data(tower_spec(FEATURES, model)), np.zeros(0, np.int64)
    with pytest.raises(SchemaError, match="samples to train on: expected at least one, got none"):
        next(epoch_batches(data, none, model=model, training=Training(**SMALL_TRAINING), seed=1, epoch=0))


def test_weights_change_no_correction() -> None:
    """How often an item is met as a negative does not depend on how much a sample counts."""
    tables, model = world(), Model(**SMALL_MODEL)
    place = tables.samples.column_names.index("weight")
    even = replace(tables, samples=tables.samples.set_column(place, "weight", pa.array(np.ones(80), pa.float32())))
    pair = []
    for given in (tables, even):
        data = given.data(tower_spec(FEATURES, model))
        training = Training(**SMALL_TRAINING)
        pair.append(next(epoch_batches(data, np.arange(80), model=model, training=training, seed=1, epoch=0)).terms)
    assert pair[0].column_correction.tolist() == pair[1].column_correction.tolist()
    assert pair[0].positive_correction.tolist() == pair[1].positive_correction.tolist()
    order = np.random.default_rng([1, 0, 0]).permutation(80)[:32]
    assert pair[0].weight.tolist() == tables.samples["weight"].to_numpy()[order].tolist()
    assert pair[1].weight.tolist() == [1.0] * 32


def test_corrections_are_expected_counts_by_kind() -> None:
    tables, batch = world(), _batches()[0]
    shares = np.bincount(tables.samples.column("item_index").to_numpy(), minlength=12) / 80
    weights = tables.items.column("weight").to_numpy()
    own, drawn = _items(batch)[:32], _items(batch)[32:]
    expected = np.concatenate([np.log(32 * shares[own]), np.log(8 * weights[drawn] / weights.sum())])
    assert batch.terms.column_correction.numpy() == pytest.approx(expected, abs=1e-6)
    assert batch.terms.positive_correction.numpy() == pytest.approx(expected[:32], abs=1e-6)
    last = _batches()[-1]
    assert last.terms.positive_correction.numpy() == pytest.approx(np.log(16 * shares[_items(last)[:16]]), abs=1e-6)


def test_without_in_batch_the_positive_is_corrected_like_a_sampled_column() -> None:
    batch, weights = _batches(in_batch=False)[0], world().items.column("weight").to_numpy()
    own = _items(batch)[:32]
    assert batch.terms.positive_correction.numpy() == pytest.approx(np.log(8 * weights[own] / weights.sum()), abs=1e-6)
    assert len(batch.terms.column_correction) == 8


def _cells(batch: Batch) -> set[tuple[int, int]]:
    return set(zip(batch.terms.masked.rows.tolist(), batch.terms.masked.columns.tolist(), strict=True))


@pytest.mark.parametrize("in_batch", [True, False])
def test_masks_by_brute_force(in_batch: bool) -> None:
    tables = world()
    item_of, user_of = (tables.samples.column(name).to_pylist() for name in ("item_index", "user_index"))
    known = {u: set(item_of[u * EVENTS : (u + 1) * EVENTS]) for u in user_of}
    order = np.random.default_rng([1, 0, 0]).permutation(80)[:32]
    batch = _batches(in_batch=in_batch, collision_mask=False)[0]
    columns = _items(batch) if in_batch else _items(batch)[32:]
    diagonal = {(i, i) for i in range(32)} if in_batch else set()
    same = {(i, j) for i, row in enumerate(order) for j, item in enumerate(columns) if item == item_of[row]}
    taken = {(i, j) for i, row in enumerate(order) for j, item in enumerate(columns) if item in known[user_of[row]]}
    assert _cells(batch) == diagonal
    assert _cells(_batches(in_batch=in_batch)[0]) == diagonal | same
    assert _cells(_batches(in_batch=in_batch, user_positive_mask=True)[0]) == diagonal | taken | same
    assert diagonal < same | {(-1, -1)}
    assert same < taken
