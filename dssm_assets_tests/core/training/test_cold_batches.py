"""Items of a batch that look like items without an event: which, in which rows, with which features."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from dssm_assets.core.config.model import Model
from dssm_assets.core.config.training import Training
from dssm_assets.core.models.tower_spec import tower_spec
from dssm_assets.core.training.batches import draw_cold_items, epoch_batches
from dssm_assets.core.training.data import TrainData
from dssm_assets_tests.core.training.worlds import FEATURES, ITEMS, SMALL_MODEL, SMALL_TRAINING, world


def test_cold_items_of_a_batch_look_like_items_without_an_event() -> None:
    made = world()
    is_cold = np.isin(np.arange(ITEMS), [0, 11])
    ids = np.where(is_cold, 1, np.arange(2, ITEMS + 2)).astype(np.int32)
    items = made.items.set_column(1, "item", pa.array(ids))
    kept = ~np.isin(made.samples.column("item_index").to_numpy(), [0, 11])
    history = made.history.set_column(
        0,
        "item_index",
        pa.array(np.where(np.isin(made.history.column("item_index").to_numpy(), [0, 11]), -1, 5).astype(np.int32)),
    )
    model = Model(**{**SMALL_MODEL, "cold_item_frac": 0.5, "item_snapshot": "corpus"})
    spec = tower_spec(FEATURES, model)
    data = TrainData(
        spec,
        samples=made.samples.filter(pa.array(kept)),
        user_rows=made.user_rows,
        item_rows=made.item_rows,
        history=history,
        users=made.users,
        items=items,
    )
    assert data.cold_values.tolist() == [1]
    seen = set()
    for batch in epoch_batches(
        data, np.arange(data.num_samples), model=model, training=Training(**SMALL_TRAINING), seed=1, epoch=0
    ):
        for item in np.unique(batch.item_index):
            values = np.unique(batch.items.singles[: len(batch.item_index), 0][batch.item_index == item])
            assert len(values) == 1  # an item is cold in all rows or in none
            seen.add((int(item), int(values[0])))
    assert len({item for item, value in seen if value == 1} - {0, 11}) > 3
    assert {value for item, value in seen if value != 1} <= set(range(3, ITEMS + 1))


def test_without_cold_items_in_the_corpus_ids_alone_are_hidden() -> None:
    spec = tower_spec(FEATURES, Model(**SMALL_MODEL))
    assert world().data(spec).cold_values.tolist() == [1]
    other = [f.model_copy(update={"embedding_name": "other"}) if f.name == "item" else f for f in FEATURES]
    assert world().data(tower_spec(other, Model(**SMALL_MODEL))).cold_values.tolist() == [-1]


@pytest.mark.parametrize("frac", [0.0, 0.25, 1.0])
def test_each_item_of_a_batch_is_cold_with_the_same_probability(frac: float) -> None:
    found = draw_cold_items(np.repeat(np.arange(4000), 2), frac, np.random.default_rng(1))
    assert len(found) == len(set(found.tolist())) == pytest.approx(4000 * frac, abs=100)
