"""Weights of earlier towers in today's, alone and as the start of a fit."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch

from dssm_assets.core.config.model import Model
from dssm_assets.core.models.tower_spec import TowerSpec, tower_spec
from dssm_assets.core.models.two_tower import TwoTower
from dssm_assets.core.statistics.bucketizer import CarriedRows
from dssm_assets.core.training.fit_report import FitResult
from dssm_assets.core.training.loop import FitContext
from dssm_assets.core.training.resume import WarmStart
from dssm_assets_tests.core.training.worlds import FEATURES, SMALL_MODEL, fitted

ALL = {feature.embedding_name: np.arange(1, feature.num_embeddings) for feature in FEATURES}


def _spec(**model: object) -> TowerSpec:
    return tower_spec(FEATURES, Model.model_validate({**SMALL_MODEL, **model}))


def _towers(seed: int, spec: TowerSpec | None = None) -> TwoTower:
    return TwoTower(spec or _spec(), torch.Generator().manual_seed(seed))


def _same(rows: Mapping[str, np.ndarray]) -> dict[str, CarriedRows]:  # type: ignore[type-arg]
    return {name: CarriedRows(of, of) for name, of in rows.items()}


def test_equal_towers_get_every_weight() -> None:
    earlier, today = _towers(1), _towers(2)
    report = WarmStart("dssm_model/2024-01-01", earlier, _same(ALL)).copy_into(today)
    assert all(torch.equal(tensor, earlier.state_dict()[name]) for name, tensor in today.state_dict().items())
    # user_kind 3, interests 5, hour 24, pages 4, item 13, tags 5 rows, without the row of missing values; the layers' tensors: two
    # linears and a norm of two tensors each, in two towers.
    assert report == {
        "from": "dssm_model/2024-01-01",
        "embedding_rows_carried": 54,
        "embedding_rows_new": 0,
        "dense_tensors_carried": 12,
        "dense_tensors_new": 0,
    }


def test_weights_of_a_sequence_encoder_are_carried() -> None:
    spec = _spec(poolings=[{"kind": "sequence", "num_blocks": 1}])
    earlier, today = _towers(1, spec), _towers(2, spec)
    report = WarmStart("earlier", earlier, _same(ALL)).copy_into(today)
    assert all(torch.equal(tensor, earlier.state_dict()[name]) for name, tensor in today.state_dict().items())
    # Beside the 12 of the towers: two norms, five linears and two biases of attention in the block, and the last norm.
    assert (report["dense_tensors_carried"], report["dense_tensors_new"]) == (12 + 4 + 10 + 2 + 2, 0)


def test_rows_are_copied_by_value_and_new_rows_stay_random() -> None:
    # Rows 2 and 5 of item were 7 and 3 in an earlier, smaller table; every other row is new.
    smaller = tower_spec(
        [f.model_copy(update={"num_embeddings": 9}) if f.embedding_name == "item" else f for f in FEATURES],
        Model(**SMALL_MODEL),
    )
    earlier, today, before = _towers(1, smaller), _towers(2), _towers(2)
    rows = {"item": CarriedRows(np.array([2, 5]), np.array([7, 3]))}
    report = WarmStart("earlier", earlier, rows).copy_into(today)
    base, base_before = today.tables.bases["item"], earlier.tables.bases["item"]
    changed = (today.tables.table(8) != before.tables.table(8)).any(1).nonzero()[:, 0]
    assert changed.tolist() == [base + 2, base + 5]
    assert torch.equal(today.tables.table(8)[base + 2], earlier.tables.table(8)[base_before + 7])
    assert torch.equal(today.tables.table(8)[base + 5], earlier.tables.table(8)[base_before + 3])
    assert torch.equal(today.tables.table(4), before.tables.table(4))
    assert (report["embedding_rows_carried"], report["embedding_rows_new"], report["dense_tensors_carried"]) == (2, 52, 12)


def test_layers_of_other_shape_or_features_stay_random() -> None:
    earlier = _towers(1)
    wider = _towers(2, _spec(hidden_units=[20]))
    report = WarmStart("earlier", earlier, {}).copy_into(wider)
    # Of each tower only the last layer's bias fits.
    assert (report["dense_tensors_carried"], report["dense_tensors_new"]) == (2, 10)
    fewer = tower_spec(FEATURES[1:], Model(**SMALL_MODEL))
    assert WarmStart("earlier", earlier, {}).copy_into(_towers(2, fewer))["dense_tensors_carried"] == 0


def test_embedding_of_other_width_stays_random() -> None:
    narrow = [f.model_copy(update={"embedding_dim": 4}) if f.embedding_name == "tags" else f for f in FEATURES]
    report = WarmStart("earlier", _towers(1), _same(ALL)).copy_into(_towers(2, tower_spec(narrow, Model(**SMALL_MODEL))))
    assert (report["embedding_rows_carried"], report["embedding_rows_new"]) == (49, 5)


@pytest.mark.parametrize("validation_days", [0, 1])
def test_warm_start_begins_with_a_lower_loss(validation_days: int) -> None:
    first = fitted({}, {"epochs": 10}, events=16)

    def first_epoch(warm: WarmStart | None) -> FitResult:
        training = {"epochs": 1, "validation_days": validation_days}
        return fitted({}, training, events=16, context=FitContext(warm_start=warm))

    warm, cold = first_epoch(WarmStart("earlier", first.two_tower, _same(ALL))), first_epoch(None)
    assert warm.loss_by_step[0] < cold.loss_by_step[0] - 0.1
    assert warm.report["warm_start"]["from"] == "earlier"
    assert cold.report["warm_start"] is None


def test_frozen_embedding_is_computed_again_every_day() -> None:
    shape = {"frozen_embedding": "item", "output_dim": 12, "poolings": [{"kind": "root", "length": 5}]}
    spec = _spec(**shape)

    def codes(warm: WarmStart | None) -> torch.Tensor:
        found = fitted(shape, {"svd_init": {"embedding": "item"}}, context=FitContext(warm_start=warm))
        base = found.two_tower.tables.bases["item"]
        return found.two_tower.tables.table(8)[base + 1 : base + 14]

    assert torch.equal(codes(WarmStart("earlier", _towers(3, spec), _same(ALL))), codes(None))
