"""Vectors do not depend on the batch size, have no context, and refuse a future history."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from dssm_assets.core.config.model import Model
from dssm_assets.core.errors import LeakError, SchemaError
from dssm_assets.core.models.tower_spec import TowerSpec, tower_spec
from dssm_assets.core.models.two_tower import TwoTower
from dssm_assets.core.training.batches import epoch_batches
from dssm_assets.core.training.inference import ItemInference, UserInference
from dssm_assets_tests.core.training.worlds import (
    AS_OF_MS,
    FEATURES,
    SMALL_MODEL,
    SMALL_TRAINING,
    infer_item_vectors,
    infer_user_vectors,
    world,
)

MODEL = Model(**{**SMALL_MODEL, "context_dropout": 1.0, "dropout": 0.0})
SPEC = tower_spec(FEATURES, MODEL)


def _towers(spec: TowerSpec = SPEC) -> TwoTower:
    return TwoTower(spec, torch.Generator().manual_seed(3))


def _users(towers: TwoTower | None = None, **changes: Any) -> np.ndarray[Any, Any]:
    """Returns user vectors as of each sample: every sample is a user with its own history bounds."""
    tables = world()
    owner = tables.samples.column("user_index").to_numpy()
    given: dict[str, Any] = {
        "history_start": tables.users.column("history_start").to_numpy()[owner],
        "history_end": tables.samples.column("history_end").to_numpy(),
        "history": tables.history,
        "as_of_ms": AS_OF_MS,
        "batch_size": 16,
        **changes,
    }
    return infer_user_vectors(towers or _towers(), tables.samples.select(["user_kind", "interests"]), **given)


def test_vectors_do_not_depend_on_the_batch_size() -> None:
    items = world().items
    assert infer_item_vectors(_towers(), items, 5) == pytest.approx(infer_item_vectors(_towers(), items, 100), abs=1e-6)
    assert _users(batch_size=7) == pytest.approx(_users(batch_size=1000), abs=1e-6)
    assert _users().dtype == np.float32
    assert _users().shape == (80, 8)


def test_parts_of_a_table_give_the_bytes_of_the_whole() -> None:
    tables = world()
    users = tables.samples.select(["user_kind", "interests"])
    owner = tables.samples.column("user_index").to_numpy()
    starts, ends = tables.users.column("history_start").to_numpy()[owner], tables.samples.column("history_end").to_numpy()
    user = UserInference(_towers(), tables.history, as_of_ms=AS_OF_MS, batch_size=16)
    # Cut between batches of 16, the rows of every batch are the same: so are the bytes.
    cuts = [slice(0, 32), slice(32, 48), slice(48, 80)]
    parts = [user.vectors(users.slice(cut.start, cut.stop - cut.start), starts[cut], ends[cut]) for cut in cuts]
    np.testing.assert_array_equal(np.concatenate(parts), _users(batch_size=16))
    item = ItemInference(_towers(), 4)
    parts = [item.vectors(tables.items.slice(begin, 4)) for begin in (0, 4, 8)]
    np.testing.assert_array_equal(np.concatenate(parts), infer_item_vectors(_towers(), tables.items, 4))


def test_inference_equals_training_input_without_context() -> None:
    from dssm_assets.core.config.training import Training

    batch = next(
        epoch_batches(world().data(SPEC), np.arange(80), model=MODEL, training=Training(**SMALL_TRAINING), seed=1, epoch=0)
    )
    rows = np.random.default_rng([1, 0, 0]).permutation(80)[:32]
    with torch.no_grad():
        trained = _towers().user_vectors(batch.user).numpy()
        trained_items = _towers().item_vectors(batch.items).numpy()[batch.own]
    assert _users()[rows] == pytest.approx(trained, abs=1e-6)
    index = world().samples.column("item_index").to_numpy()[rows]
    assert infer_item_vectors(_towers(), world().items, 5)[index] == pytest.approx(trained_items, abs=1e-6)


def test_history_of_the_evaluation_day_is_refused() -> None:
    last = int(world().history.column("event_time_ms").to_numpy().max())
    ends = {"history_start": np.zeros(80, np.int64), "history_end": np.full(80, 8)}
    assert _users(as_of_ms=last + 1, **ends).shape == (80, 8)
    with pytest.raises(LeakError, match="history of users"):
        _users(as_of_ms=last, **ends)


def test_missing_feature_columns_are_named() -> None:
    with pytest.raises(SchemaError, match="table items, column tags"):
        infer_item_vectors(_towers(), pa.table({"item": pa.array([2], pa.int32())}), 5)


def test_vectors_of_several_interests_end_with_ones_and_do_not_depend_on_the_batch_size() -> None:
    poolings = [{"kind": "sequence"}, {"kind": "attention"}, {"kind": "root", "half_life_days": 2.0}, {"kind": "recency"}]
    changes = {"poolings": poolings, "num_interests": 3, "skip": True, "norm": "batch", "prior": True}
    towers = _towers(tower_spec(FEATURES, Model(**{**SMALL_MODEL, **changes})))
    with torch.no_grad():
        towers.attention[0].score.weight.mul_(100.0)  # type: ignore[operator, union-attr]
    stored = _users(towers, batch_size=1000)
    assert stored.shape == (80, 3 * (8 + 1))
    assert _users(towers, batch_size=7) == pytest.approx(stored, abs=1e-6)
    whole = stored.reshape(80, 3, 9)
    assert (whole[:, :, 8] == 1).all()
    assert np.abs(whole[:, 0] - whole[:, 1]).max() > 1e-3


def test_equal_items_go_through_the_tower_once(monkeypatch: pytest.MonkeyPatch) -> None:
    items = world().items
    twice = pa.concat_tables([items, items, items.slice(3, 1)]).combine_chunks()
    towers, seen = _towers(), []
    real = towers.item_vectors
    monkeypatch.setattr(towers, "item_vectors", lambda inputs: (seen.append(len(inputs)), real(inputs))[1])
    found = infer_item_vectors(towers, twice, 5)
    assert sum(seen) <= items.num_rows
    assert max(seen) <= 5
    expected = infer_item_vectors(_towers(), items, 1)
    assert found == pytest.approx(np.concatenate([expected, expected, expected[3:4]]), abs=1e-6)


def test_no_items_have_no_vectors() -> None:
    assert infer_item_vectors(_towers(), world().items.slice(0, 0), 5).shape == (0, 8)
