"""What a search for the best epoch draws its negatives by: the days before those that it is scored on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from dssm_assets.core.config import NegativeItems
from dssm_assets.core.model_config import Model
from dssm_assets.core.models.tower_spec import tower_spec
from dssm_assets.core.samples.item_weights import with_law
from dssm_assets.core.training.batches import epoch_batches
from dssm_assets.core.training.corpus_samplers import CorpusSamplers
from dssm_assets.core.training.train_data import TrainData
from dssm_assets.core.training_config import Training
from dssm_assets_tests.core.training.worlds import FEATURES, ITEMS, SMALL_MODEL, SMALL_TRAINING, World, world

LAW = NegativeItems(alpha=0.5, smoothing=1)
BY_DAY = {0: [3, 0, 0], 1: [0, 0, 0], 2: [0, 8, 0]}
"""Day -> how often each of three items was taken."""


def _items(weights: list[float]) -> pa.Table:
    return pa.table([weights], schema=with_law(pa.schema({"weight": pa.float64()}), LAW))


def _before(day: int) -> np.ndarray:
    return np.sum([counts for at, counts in BY_DAY.items() if at < day], axis=0)


def test_weights_as_of_a_day_by_hand() -> None:
    # All three days: counts 3, 8, 0, weights 2, 3, 1 of 6. The first two: counts 3, 0, 0, weights 2, 1, 1 of 4.
    samplers, model = CorpusSamplers(_items([2.0, 3.0, 1.0]), None, _before), Model()
    assert samplers.of(model, None).probability == pytest.approx([2 / 6, 3 / 6, 1 / 6])
    assert samplers.of(model, 2).probability == pytest.approx([2 / 4, 1 / 4, 1 / 4])
    mixed = Model(sampler="mixed", uniform_frac=0.4)
    assert samplers.of(mixed, 2).probability == pytest.approx(0.4 / 3 + 0.6 * np.array([2, 1, 1]) / 4)
    assert samplers.of(model, 2) is samplers.of(model, 2)


def test_weights_without_a_law_are_taken_as_they_are() -> None:
    bare = CorpusSamplers(_items([2.0, 3.0, 1.0]).replace_schema_metadata(None), None, _before)
    assert bare.of(Model(), 2).probability == pytest.approx([2 / 6, 3 / 6, 1 / 6])


def _with_law(tables: World) -> World:
    """The world's items, weighed by this law of all that was taken in it."""
    taken = tables.samples["item_index"].to_numpy()
    weights = (np.bincount(taken, minlength=ITEMS) + 1.0) ** 0.5
    items = tables.items.set_column(0, "weight", pa.array(weights))
    return replace(tables, items=items.cast(with_law(items.schema, LAW)))


def _opened(tables: World) -> TrainData:
    return tables.data(tower_spec(FEATURES, Model(**SMALL_MODEL)))


@pytest.mark.parametrize("end_day", [1, None])
def test_corrections_of_sampled_columns_are_of_the_days_that_are_trained_on(end_day: int | None) -> None:
    tables = _with_law(world())
    data, model = _opened(tables), Model(**SMALL_MODEL)
    last = data.num_days if end_day is None else end_day
    assert data.num_days == 2
    rows = data.rows_of_days(0, last)
    days, items = (tables.samples[name].to_pylist() for name in ("day", "item_index"))
    counts = [sum(item == one and day < last for day, item in zip(days, items, strict=True)) for one in range(ITEMS)]
    weights = [(count + 1) ** 0.5 for count in counts]
    for batch in epoch_batches(data, rows, model=model, training=Training(**SMALL_TRAINING), seed=1, epoch=0):
        sampled = batch.item_index[-8:]
        expected = [np.log(8 * weights[item] / sum(weights)) for item in sampled.tolist()]
        assert batch.terms.column_correction.numpy()[-8:] == pytest.approx(expected, abs=1e-6)


def test_what_is_taken_on_later_days_changes_nothing_of_a_search() -> None:
    tables = _with_law(world())
    first, day = 1, tables.samples["day"].to_numpy()
    # Later days take one item only.
    item = np.where(day >= first, 0, tables.samples["item_index"].to_numpy()).astype(np.int32)
    place = tables.samples.column_names.index("item_index")
    later = _with_law(replace(tables, samples=tables.samples.set_column(place, "item_index", pa.array(item))))
    found = []
    for one in (tables, later):
        data = _opened(one)
        assert first < data.num_days
        drawn = data.sampler(Model(**SMALL_MODEL), first).probability
        found.append((drawn.tolist(), data.sampler(Model(**SMALL_MODEL)).probability.tolist()))
    assert found[0][0] == found[1][0]
    assert found[0][1] != found[1][1]
