"""The search over epochs on validation days: scores, early stopping, the refit, and that nothing of those days leaks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from dssm_assets.core.errors import ConfigError
from dssm_assets.core.model_config import Model
from dssm_assets.core.models.tower_spec import tower_spec
from dssm_assets.core.training import search
from dssm_assets.core.training.checkpoint import model_to_bytes
from dssm_assets.core.training.fit_state import EpochScore
from dssm_assets.core.training.loop import fit
from dssm_assets.core.training.report import FitResult, Surroundings
from dssm_assets.core.training_config import Training
from dssm_assets_tests.core.training.worlds import FEATURES, SMALL_MODEL, SMALL_TRAINING, StepClock, World, fitted, world


def _fitted(model: dict[str, Any], training: dict[str, Any], tables: World | None = None) -> FitResult:
    section = Model(**{**SMALL_MODEL, **model})
    spec = tower_spec(FEATURES, section)
    return fit(
        (tables or world(events=16)).data(spec),
        spec,
        model=section,
        training=Training(**{**SMALL_TRAINING, "validation_days": 1, **training}),
        seed=1,
        progress=lambda progress: None,
        now=StepClock(),
        around=Surroundings(ks=(3,)),
    )


@pytest.fixture
def rates(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Hit rates that the epochs are said to have."""
    told: list[float] = []
    monkeypatch.setattr(search.Judge, "score", lambda self, towers, epoch, ranks: EpochScore(epoch, told[epoch - 1], 0.0))
    return told


@pytest.mark.parametrize(
    ("told", "patience", "epochs_taken", "best"),
    [
        ([0.1, 0.3, 0.2, 0.25, 0.9], 2, 4, 2),
        ([0.1, 0.3, 0.2, 0.25, 0.9], 3, 5, 5),
        ([0.3, 0.3, 0.3, 0.3, 0.3], 1, 2, 1),
        ([0.1, 0.2, 0.3, 0.4, 0.5], 1, 5, 5),
    ],
)
def test_it_ends_after_so_many_epochs_without_a_better_one(
    told: list[float], patience: int, epochs_taken: int, best: int, rates: list[float]
) -> None:
    rates += told
    result = _fitted({}, {"epochs": 5, "patience": patience})
    # 120 samples before the last day are 4 batches an epoch, all 160 are 5.
    assert len(result.scores) == epochs_taken
    assert len(result.search_loss_by_step) == 4 * epochs_taken
    assert len(result.loss_by_step) == 5 * best
    assert (result.report["best_epoch"], result.report["epochs"]) == (best, best)
    assert result.report["validation_hit_rate"] == told[:epochs_taken]


def test_the_refit_is_a_fit_without_search_for_the_best_number_of_epochs(rates: list[float]) -> None:
    rates += [0.5, 0.4, 0.3]
    refitted, plain = _fitted({}, {"epochs": 3}), fitted({}, {"epochs": 3}, events=16)
    assert refitted.loss_by_step.tolist() == plain.loss_by_step[:5].tolist()


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_without_refit_the_towers_of_the_best_epoch_are_kept(average: float, rates: list[float]) -> None:
    rates += [0.1, 0.5, 0.2, 0.2]
    training = {"refit": False, "weight_average": average, "final_learning_rate_frac": 1.0, "warmup_frac": 0.0}
    kept = _fitted({}, {**training, "epochs": 4})
    rates[:] = [0.1, 0.5]
    assert model_to_bytes(_fitted({}, {**training, "epochs": 2}).two_tower) == model_to_bytes(kept.two_tower)
    assert len(kept.scores) == 4


def test_scores_are_hit_rates_and_the_prior_of_the_best_epoch_is_kept() -> None:
    result = _fitted({"prior": True}, {"epochs": 4})
    assert all(0 <= score.plain_hit_rate <= score.hit_rate <= 1 for score in result.scores)
    best = result.scores[result.report["best_epoch"] - 1]
    assert result.prior is not None
    assert best.prior == (result.prior.popularity, result.prior.recent, result.prior.half_life_days)
    assert _fitted({}, {"epochs": 4}).prior is None


def test_nothing_of_the_validation_days_is_learned_before_the_choice() -> None:
    """Other items, features and times of the last day change the scores, and no loss before them."""
    tables, spec_model = world(events=16), {"history": "others", "user_positive_mask": True, "sampler": "uniform"}
    day = tables.samples.column("day").to_numpy()
    is_last = day == day.max()
    rng = np.random.default_rng(7)
    items = tables.samples.column("item_index").to_numpy().copy()
    items[is_last] = rng.integers(0, 12, is_last.sum())
    hours = tables.samples.column("hour").to_numpy().copy()
    hours[is_last] = 0
    samples = tables.samples
    for name, values in (("item_index", items), ("hour", hours)):
        samples = samples.set_column(samples.column_names.index(name), name, pa.array(values.astype(np.int32)))
    past = tables.history
    for name, values in (("item_index", items), ("h__item", items + 2)):
        past = past.set_column(past.column_names.index(name), name, pa.array(values.astype(np.int32)))
    before = _fitted(spec_model, {"epochs": 1}, tables)
    after = _fitted(spec_model, {"epochs": 1}, replace(tables, samples=samples, history=past))
    assert before.search_loss_by_step.tolist() == after.search_loss_by_step.tolist()
    assert before.loss_by_step.tolist() != after.loss_by_step.tolist()
    assert before.scores != after.scores


def test_a_prior_without_validation_days_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"model.prior.*set training.validation_days"):
        _fitted({"prior": True}, {"validation_days": 0})


def test_validation_days_that_leave_nothing_to_learn_from_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"training.validation_days.*4 of 4 days"):
        _fitted({}, {"validation_days": 4})
