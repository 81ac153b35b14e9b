"""The state of a training as bytes and back."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch

from dssm_assets.core.config.model import Model
from dssm_assets.core.config.training import Training
from dssm_assets.core.errors import ConfigError, StorageError
from dssm_assets.core.models.tower_spec import TowerSpec, tower_spec
from dssm_assets.core.models.two_tower import TwoTower
from dssm_assets.core.statistics.bucketizer import CarriedRows
from dssm_assets.core.training.inference import infer_item_vectors
from dssm_assets.core.training.loop import FitContext, FitResult, fit
from dssm_assets.core.training.state import (
    EpochScore,
    Record,
    WarmStart,
    mapped_model,
    model_from_bytes,
    model_to_bytes,
    state_chunks,
    state_of,
)
from dssm_assets_tests.core.training.worlds import FEATURES, SMALL_MODEL, SMALL_TRAINING, StepClock, fitted, world

TENSORS = {
    "a": torch.arange(6, dtype=torch.float32).view(2, 3),
    "count": torch.tensor(3),
    "dropout": torch.arange(9, dtype=torch.uint8),
    "fine": torch.tensor([0.1], dtype=torch.float64),
    "nothing": torch.zeros(0, 4),
}


def _record() -> Record:
    scores = [EpochScore(1, 0.25, 0.2, (0.1, 0.0, 7.0)), EpochScore(2, 0.5, 0.4, None)]
    return Record(True, 2, 5, [0.1, 0.2], [1.5], scores)


def _bytes() -> bytes:
    return b"".join(state_chunks(_record(), TENSORS, "key"))


def test_round_trip_keeps_every_bit() -> None:
    found = state_of(_bytes(), "key")
    assert found is not None
    record, tensors = found
    assert record == _record()
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor)


def test_a_state_of_another_configuration_is_passed_over() -> None:
    assert state_of(_bytes(), "other") is None


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-1], lambda b: b + b"0", lambda b: b[:30], lambda b: b"x" + b[1:], lambda b: b""]
)
def test_damaged_bytes_are_refused(damage) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(StorageError, match="state of a training"):
        state_of(damage(_bytes()), "key")


def test_a_type_that_has_no_bytes_is_refused() -> None:
    with pytest.raises(StorageError, match="tensor odd: expected one of float32"):
        list(state_chunks(_record(), {"odd": torch.zeros(1, dtype=torch.bfloat16)}, "key"))


def test_the_first_of_the_best_epochs_is_the_best() -> None:
    record = Record(True, scores=[EpochScore(e, rate, rate) for e, rate in ((1, 0.1), (2, 0.3), (3, 0.3))])
    best = record.best
    assert best is not None
    assert best.epoch == 2
    assert Record(True).best is None


SPEC = tower_spec(FEATURES, Model(**SMALL_MODEL))


def _towers(seed: int = 0) -> TwoTower:
    return TwoTower(SPEC, torch.Generator().manual_seed(seed))


def test_round_trip_keeps_every_weight_and_every_vector() -> None:
    stored = model_to_bytes(_towers())
    loaded = model_from_bytes(stored, SPEC)
    assert model_to_bytes(loaded) == stored == model_to_bytes(_towers())
    assert model_to_bytes(_towers(1)) != stored
    items = world().items
    assert (infer_item_vectors(loaded, items, 5) == infer_item_vectors(_towers(), items, 5)).all()


def test_a_mapped_model_leaves_its_tables_where_they_lie() -> None:
    stored = model_to_bytes(_towers())
    held = np.frombuffer(stored, np.uint8).copy()
    mapped = mapped_model(held, SPEC)
    assert model_to_bytes(mapped) == stored
    items = world().items
    assert (infer_item_vectors(mapped, items, 5) == infer_item_vectors(_towers(), items, 5)).all()
    assert all(np.shares_memory(mapped.tables.table(dim).numpy(), held) for dim in mapped.tables.dims)
    assert not any(np.shares_memory(weights.detach().numpy(), held) for weights in mapped.parameters())
    with pytest.raises(StorageError, match="stored model"):
        mapped_model(held[:-4], SPEC)


def test_every_difference_of_the_specification_is_named() -> None:
    other = tower_spec(FEATURES[:-1], Model(**{**SMALL_MODEL, "temperature": 0.5}))
    with pytest.raises(ConfigError) as caught:
        model_from_bytes(model_to_bytes(_towers()), other)
    places = [fault.where for fault in caught.value.faults]
    assert "stored model, temperature" in places
    assert "stored model, feature h__item.num_embeddings" in places
    assert "stored model, output_dim" not in places


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-4], lambda b: b + b"0000", lambda b: b[:40], lambda b: b"x" + b[1:], lambda b: b""]
)
def test_checkpoint_damaged_bytes_are_refused(damage: object) -> None:
    assert callable(damage)
    with pytest.raises(StorageError, match="stored model"):
        model_from_bytes(damage(model_to_bytes(_towers())), SPEC)


ALL = {feature.embedding_name: np.arange(1, feature.num_embeddings) for feature in FEATURES}


def _spec(**model: object) -> TowerSpec:
    return tower_spec(FEATURES, Model.model_validate({**SMALL_MODEL, **model}))


def _warm_start_towers(seed: int, spec: TowerSpec | None = None) -> TwoTower:
    return TwoTower(spec or _spec(), torch.Generator().manual_seed(seed))


def _same(rows: Mapping[str, np.ndarray]) -> dict[str, CarriedRows]:  # type: ignore[type-arg]
    return {name: CarriedRows(of, of) for name, of in rows.items()}


def test_everything_is_carried_between_alike_towers() -> None:
    earlier, today = _warm_start_towers(1), _warm_start_towers(2)
    told = WarmStart("dssm_model/2024-01-01", earlier, _same(ALL)).into(today)
    assert all(torch.equal(tensor, earlier.state_dict()[name]) for name, tensor in today.state_dict().items())
    # user_kind 3, interests 5, hour 24, pages 4, item 13, tags 5 rows beside the missing one; the layers' tensors: two
    # linears and a norm of two tensors each, in two towers.
    assert told == {
        "from": "dssm_model/2024-01-01",
        "embedding_rows_carried": 54,
        "embedding_rows_new": 0,
        "dense_tensors_carried": 12,
        "dense_tensors_new": 0,
    }


def test_rows_move_by_value_and_new_ones_stay_as_they_were() -> None:
    # Today's rows 2 and 5 of item were 7 and 3 in a smaller table; user_kind is not known of; all others are new.
    smaller = tower_spec(
        [f.model_copy(update={"num_embeddings": 9}) if f.embedding_name == "item" else f for f in FEATURES],
        Model(**SMALL_MODEL),
    )
    earlier, today, before = _warm_start_towers(1, smaller), _warm_start_towers(2), _warm_start_towers(2)
    rows = {"item": CarriedRows(np.array([2, 5]), np.array([7, 3]))}
    told = WarmStart("earlier", earlier, rows).into(today)
    base, base_before = today.tables.bases["item"], earlier.tables.bases["item"]
    changed = (today.tables.table(8) != before.tables.table(8)).any(1).nonzero()[:, 0]
    assert changed.tolist() == [base + 2, base + 5]
    assert torch.equal(today.tables.table(8)[base + 2], earlier.tables.table(8)[base_before + 7])
    assert torch.equal(today.tables.table(8)[base + 5], earlier.tables.table(8)[base_before + 3])
    assert torch.equal(today.tables.table(4), before.tables.table(4))
    assert (told["embedding_rows_carried"], told["embedding_rows_new"], told["dense_tensors_carried"]) == (2, 52, 12)


def test_layers_of_another_shape_or_of_other_features_stay_new() -> None:
    earlier = _warm_start_towers(1)
    wider = _warm_start_towers(2, _spec(hidden_units=[20]))
    told = WarmStart("earlier", earlier, {}).into(wider)
    # Of each tower only the last layer's bias fits.
    assert (told["dense_tensors_carried"], told["dense_tensors_new"]) == (2, 10)
    fewer = tower_spec(FEATURES[1:], Model(**SMALL_MODEL))
    assert WarmStart("earlier", earlier, {}).into(_warm_start_towers(2, fewer))["dense_tensors_carried"] == 0


def test_an_embedding_of_another_width_stays_new() -> None:
    narrow = [f.model_copy(update={"embedding_dim": 4}) if f.embedding_name == "tags" else f for f in FEATURES]
    told = WarmStart("earlier", _warm_start_towers(1), _same(ALL)).into(
        _warm_start_towers(2, tower_spec(narrow, Model(**SMALL_MODEL)))
    )
    assert (told["embedding_rows_carried"], told["embedding_rows_new"]) == (49, 5)


@pytest.mark.parametrize("validation_days", [0, 1])
def test_a_fit_that_begins_warm_begins_better(validation_days: int) -> None:
    first = fitted({}, {"epochs": 10}, events=16)

    def begun(warm: WarmStart | None) -> FitResult:
        spec, training = _spec(), Training(**{**SMALL_TRAINING, "epochs": 1, "validation_days": validation_days})
        return fit(
            world(events=16).data(spec),
            spec,
            model=Model(**SMALL_MODEL),
            training=training,
            seed=1,
            progress=lambda progress: None,
            now=StepClock(),
            around=FitContext(warm_start=warm),
        )

    warm, cold = begun(WarmStart("earlier", first.two_tower, _same(ALL))), begun(None)
    assert warm.loss_by_step[0] < cold.loss_by_step[0] - 0.1
    assert warm.report["warm_start"]["from"] == "earlier"
    assert cold.report["warm_start"] is None


def test_codes_that_are_held_are_each_days_own() -> None:
    shape = {"frozen_embedding": "item", "output_dim": 12, "poolings": [{"kind": "root", "length": 5}]}
    model = Model.model_validate({**SMALL_MODEL, **shape})
    training = Training.model_validate({**SMALL_TRAINING, "svd_init": {"embedding": "item"}})
    spec = _spec(**shape)

    def codes(warm: WarmStart | None) -> torch.Tensor:
        found = fit(
            world().data(spec),
            spec,
            model=model,
            training=training,
            seed=1,
            progress=lambda progress: None,
            now=StepClock(),
            around=FitContext(warm_start=warm),
        )
        base = found.two_tower.tables.bases["item"]
        return found.two_tower.tables.table(8)[base + 1 : base + 14]

    assert torch.equal(codes(WarmStart("earlier", _warm_start_towers(3, spec), _same(ALL))), codes(None))
