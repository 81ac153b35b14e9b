"""Fitting: determinism, the report, every declared field has an effect, and a world whose right answer is obvious."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from dssm_assets.core.config.model import Model, Similarity
from dssm_assets.core.config.training import StepPlan, Training
from dssm_assets.core.errors import ConfigError
from dssm_assets.core.models.tower_spec import tower_spec
from dssm_assets.core.training.fit_report import EpochScore, FitClock, FitResult, Progress
from dssm_assets.core.training.loop import FitContext, fit
from dssm_assets.core.training.validation import EpochEvaluator
from dssm_assets_tests.core.training.worlds import (
    AS_OF_MS,
    EVENTS,
    FEATURES,
    ITEMS,
    SMALL_MODEL,
    SMALL_TRAINING,
    USERS,
    StepClock,
    World,
    fitted,
    infer_item_vectors,
    infer_user_vectors,
    model_bytes,
    world,
)

CHANGES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("output_dim", {"output_dim": 6}, {}),
    ("hidden_units", {"hidden_units": [12]}, {}),
    ("norm", {"norm": "batch"}, {}),
    ("dropout", {"dropout": 0.3}, {}),
    ("skip", {"skip": True}, {}),
    ("embedding_dropout", {"embedding_dropout": 0.3}, {}),
    ("similarity", {"similarity": Similarity.INNER_PRODUCT}, {}),
    ("temperature", {"temperature": 0.2}, {}),
    ("learn_temperature", {"learn_temperature": True}, {"learning_rate": 0.05}),
    ("loss", {"loss": "sigmoid"}, {}),
    ("history_cut", {"history_cut": {"sample_frac": 1.0, "min_length_frac": 0.0}}, {}),
    ("history_length", {"history_length": 2}, {}),
    ("poolings", {"poolings": [{"kind": "root", "length": 5}]}, {}),
    ("min_history", {"min_history": 3}, {}),
    ("context_dropout", {"context_dropout": 0.9}, {}),
    ("logq", {"logq": 0.5}, {}),
    ("in_batch", {"in_batch": False}, {}),
    ("sampler", {"sampler": "uniform"}, {}),
    ("num_sample", {"num_sample": 16}, {}),
    ("user_positive_mask", {"user_positive_mask": True}, {}),
    ("epochs", {}, {"epochs": 3}),
    ("epoch_frac", {}, {"epoch_frac": 0.5}),
    ("batch_size", {}, {"batch_size": 16}),
    ("learning_rate", {}, {"learning_rate": 0.01}),
    ("embedding_optimiser", {}, {"embedding_optimiser": "adam"}),
    ("embedding_learning_rate", {}, {"embedding_learning_rate": 0.01}),
    ("weight_decay", {}, {"weight_decay": 0.5}),
    ("warmup_frac", {}, {"warmup_frac": 0.5}),
    ("final_learning_rate_frac", {}, {"final_learning_rate_frac": 0.9}),
    ("weight_average", {}, {"weight_average": 0.9}),
    ("precision", {}, {"precision": "bfloat16"}),
]
TESTED_ELSEWHERE = {
    "learn_scale": "acts on point-wise losses: below",
    "num_interests": "changes the shape of the vectors: test_batches",
    "gradient_clip": "Adam does not depend on the gradient's scale, except for its epsilon: below",
    "num_threads": "below",
    "group_sessions": "changes the order alone: test_batches",
    "group_users": "test_group_users",
    "prior": "chosen after the fit: below",
    "validation_days": "below",
    "patience": "below",
    "refit": "below",
    "checkpoint_minutes": "test_resume of the steps",
    "device": "test_compute",
    "num_processes": "test_fit_process of several_processes",
    "launcher": "test_fit_process, test_fit of several_processes",
    "shard_tables": "test_sharded_tables, test_shared_fits",
    "svd_init": "needs skip: test_svd_init",
    "frozen_embedding": "needs training.svd_init: test_svd_init",
    "targets": "needs repeated items: test_data",
    "frozen_in_loss": "acts on frozen embeddings: test_svd_init",
    "warm_start": "the step finds the earlier model: test_dssm_model of the steps, test_warm_start",
    "num_hard_sample": "needs hard negatives: test_batches",
    "item_snapshot": "which features own items have: test_batches",
    "history": "train_samples decides where a sample's history ends",
    "event_weights": "train_samples weighs samples",
    "recency_half_life_days": "train_samples weighs samples",
}


def _vectors(result: FitResult, events: int = EVENTS) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    tables = world(events=events)
    first = np.arange(USERS) * events
    users = tables.samples.take(pa.array(first)).select(["user_kind", "interests"])
    bounds = {name: tables.users.column(name).to_numpy() for name in ("history_start", "history_end")}
    user = infer_user_vectors(result.two_tower, users, **bounds, history=tables.history, as_of_ms=AS_OF_MS, batch_size=4)
    return user, infer_item_vectors(result.two_tower, tables.items, batch_size=5)


@pytest.fixture(scope="module")
def baseline() -> FitResult:
    return fitted()


@pytest.mark.parametrize(("field", "model", "training"), CHANGES, ids=[change[0] for change in CHANGES])
def test_changing_a_field_changes_the_vectors(
    field: str, model: dict[str, Any], training: dict[str, Any], baseline: FitResult
) -> None:
    before, after = _vectors(baseline), _vectors(fitted(model, training))
    for old, new in zip(before, after, strict=True):
        assert old.shape != new.shape or not np.allclose(old, new, atol=1e-4), field


@pytest.mark.parametrize("loss", ["sigmoid", "l2"])
def test_learn_scale_changes_the_vectors_of_point_wise_losses(loss: str) -> None:
    before, after = (
        _vectors(fitted({"loss": loss, "learn_scale": learns}, {"learning_rate": 0.05})) for learns in (False, True)
    )
    assert not np.allclose(before[1], after[1], atol=1e-4)


def test_gradient_clip_changes_the_dense_layers() -> None:
    """Adam divides by a gradient's size, so clipping shows where the epsilon of its division counts."""
    assert not np.allclose(*(_vectors(fitted({}, {"gradient_clip": clip}))[1] for clip in (1e-9, 1e6)), atol=1e-4)


def test_every_declared_field_is_tested() -> None:
    tested = {change[0] for change in CHANGES} | TESTED_ELSEWHERE.keys()
    assert tested == Model.model_fields.keys() | Training.model_fields.keys()


def test_same_seed_same_bytes_other_seed_other_bytes(baseline: FitResult) -> None:
    again = fitted()
    assert model_bytes(again.two_tower) == model_bytes(baseline.two_tower)
    assert again.loss_by_step.tolist() == baseline.loss_by_step.tolist()
    assert model_bytes(fitted(seed=2).two_tower) != model_bytes(baseline.two_tower)


def test_two_threads_repeat_their_bytes() -> None:
    import torch

    two = [fitted({}, {"num_threads": 2}) for _ in range(2)]
    assert torch.get_num_threads() == 2
    assert model_bytes(two[0].two_tower) == model_bytes(two[1].two_tower)


def test_report_and_progress_by_hand() -> None:
    # 80 samples in batches of 32: 3 steps an epoch, 2 epochs. The clock reads once per call: one at the start; per
    # batch two around the wait and one after the step; two around each epoch's last, empty wait. So it is at 3 * 6
    # + 2 * 2 seconds after the start, 6 + 2 of them spent waiting.
    seen: list[Progress] = []
    result = fitted(context=FitContext(progress=seen.append, now=StepClock()))
    assert [(p.step, p.steps, p.epoch) for p in seen] == [(1, 6, 0), (2, 6, 0), (3, 6, 0), (4, 6, 1), (5, 6, 1), (6, 6, 1)]
    # A step takes 3 seconds; the first one may have been prepared for long. After the second, 96 samples are left.
    assert [(p.samples_per_s, p.eta_s, p.eta_at_most_s) for p in seen[:2]] == [(32 / 3, None, None), (64 / 6, 9, 9)]
    assert seen[-1].eta_s == 0
    report = result.report
    assert (report["steps"], report["epochs"], report["samples"]) == (6, 2, 80)
    assert report["seconds"] == 22
    assert report["input_wait_frac"] == pytest.approx(8 / 22)
    assert report["samples_per_s"] == 160 / 22
    assert report["final_loss"] == pytest.approx(float(result.loss_by_step[3:].mean()))


def test_schedule_applies_to_the_dense_layers() -> None:
    """With tables that hardly change, the end of the schedule still shows in the towers' layers."""
    still = {"embedding_learning_rate": 1e-12}
    ends = [fitted({}, {**still, "final_learning_rate_frac": frac}).two_tower for frac in (0.0, 1.0)]
    layers = [towers.item_tower.state_dict()["linears.0.weight"].numpy() for towers in ends]
    assert not np.allclose(layers[0], layers[1], atol=1e-4)


def _fit_with_plan(plan: StepPlan | None) -> bytes:
    return model_bytes(fitted(context=FitContext(plan=plan)).two_tower)


def test_warm_up_and_decay_follow_the_plan() -> None:
    # 80 samples are 6 steps, 1 of warm-up by the section.
    own = _fit_with_plan(None)
    assert _fit_with_plan(StepPlan(6, 5)) == own
    assert _fit_with_plan(StepPlan(6, 3)) != own
    # If samples are left out, the fit is shorter than planned; a sixth of its steps is still warm-up.
    assert _fit_with_plan(StepPlan(60, 50)) == own


def test_loss_falls_and_the_missing_row_stays_zero() -> None:
    result = fitted({}, {"epochs": 20})
    assert result.loss_by_step[-3:].mean() < result.loss_by_step[:3].mean() - 0.3
    tables = result.two_tower.tables
    assert not any(tables.table(dim)[0].any() for dim in tables.dims)


@pytest.mark.parametrize("model", [{}, {"in_batch": False}, {"num_sample": 0}, {"similarity": Similarity.INNER_PRODUCT}])
def test_every_user_gets_the_items_of_its_group_first(model: dict[str, Any]) -> None:
    # Many events, so that every user has most items of its group: with few, items without interactions rightly rank low.
    events = 40
    user, item = _vectors(fitted(model, {"epochs": 10, "learning_rate": 0.01}, events=events), events)
    best = np.argsort(-(user @ item.T), axis=1)[:, : ITEMS // 2]
    for index in range(USERS):
        assert sorted(best[index].tolist()) == [i + (index % 2) * (ITEMS // 2) for i in range(ITEMS // 2)]


def test_data_of_another_model_section_are_refused() -> None:
    model, training = Model(**SMALL_MODEL), Training(**SMALL_TRAINING)
    spec = tower_spec(FEATURES, Model(**{**SMALL_MODEL, "output_dim": 4, "temperature": 1.0}))
    with pytest.raises(ConfigError, match=r"(?s)output_dim.*temperature"):
        fit(world().data(spec), model=model, training=training, seed=1)


def _fitted(model: dict[str, Any], training: dict[str, Any], tables: World | None = None) -> FitResult:
    return fitted(model, {"validation_days": 1, **training}, events=16, tables=tables, context=FitContext(ks=(3,)))


@pytest.fixture
def rates(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Hit rates that the evaluator returns for the epochs, in order."""
    hit_rates: list[float] = []
    monkeypatch.setattr(
        EpochEvaluator, "score", lambda self, towers, epoch: EpochScore(epoch, hit_rates[epoch - 1], 0.0, None, 0.02)
    )
    return hit_rates


@pytest.mark.parametrize(
    ("hit_rates", "patience", "num_epochs", "best"),
    [
        ([0.1, 0.3, 0.2, 0.25, 0.9], 2, 4, 2),
        ([0.1, 0.3, 0.2, 0.25, 0.9], 3, 5, 5),
        ([0.3, 0.3, 0.3, 0.3, 0.3], 1, 2, 1),
        ([0.1, 0.2, 0.3, 0.4, 0.5], 1, 5, 5),
    ],
)
def test_search_ends_after_patience_epochs_without_a_better_one(
    hit_rates: list[float], patience: int, num_epochs: int, best: int, rates: list[float]
) -> None:
    rates += hit_rates
    result = _fitted({}, {"epochs": 5, "patience": patience})
    # 120 samples before the last day are 4 batches an epoch, all 160 are 5.
    assert len(result.scores) == num_epochs
    assert len(result.search_loss_by_step) == 4 * num_epochs
    assert len(result.loss_by_step) == 5 * best
    assert (result.report["best_epoch"], result.report["epochs"]) == (best, best)
    assert result.report["validation_hit_rate"] == hit_rates[:num_epochs]
    gain = "0.6000" if patience == 3 else "0.1000"
    border = f"training.epochs: the last epoch, 5, still gained {gain} on the validation days (error 0.0200); raise it"
    assert result.report["search_borders"] == ([border] if best == 5 else [])
    assert _fitted({}, {"epochs": 1}).report["search_borders"] == []  # of one number nothing is chosen


@pytest.mark.parametrize(("last", "is_named"), [(0.419, False), (0.42, False), (0.421, True)])
def test_an_epoch_that_gained_less_than_its_error_is_no_border(rates: list[float], last: float, is_named: bool) -> None:
    rates += [0.3, 0.4, last]
    assert bool(_fitted({}, {"epochs": 3}).report["search_borders"]) == is_named


def test_eta_says_what_early_stopping_can_save_and_at_most(rates: list[float]) -> None:
    # Half of 120 samples are 2 batches of 32 in an epoch of the search, half of 160 are 3 in one of the fit. At the earliest the first
    # epoch stays the best: 2 epochs and 1 are 224 samples; at most 5 and 5 are 800. After the second step 64 are read, 32 in 3 seconds.
    rates += [0.3, 0.2]
    seen: list[Progress] = []
    training = {"validation_days": 1, "epochs": 5, "patience": 1, "epoch_frac": 0.5}
    fitted({}, training, events=16, context=FitContext(ks=(3,), progress=seen.append, now=StepClock()))
    assert (seen[1].eta_s, seen[1].eta_at_most_s) == (160 * 3 / 32, 736 * 3 / 32)
    assert [at.phase for at in seen] == ["search"] * 4 + ["fit"] * 3
    assert all(at.eta_s == at.eta_at_most_s for at in seen[4:])
    assert seen[-1].eta_s == 0


def test_eta_forgets_slow_first_steps() -> None:
    # 10 samples a step: four steps of 40 seconds, four of 1 second. After the eighth the pace is that since the fourth.
    seconds = iter([0.0, 40.0, 80.0, 120.0, 160.0, 161.0, 162.0, 163.0, 164.0])
    clock = FitClock(lambda: next(seconds))
    for _ in range(8):
        clock.count_samples(10)
    assert clock.seconds_for(100) == 10.0


def test_refit_is_a_fit_of_the_best_number_of_epochs(rates: list[float]) -> None:
    rates += [0.5, 0.4, 0.3]
    refitted, plain = _fitted({}, {"epochs": 3}), fitted({}, {"epochs": 3}, events=16)
    assert refitted.loss_by_step.tolist() == plain.loss_by_step[:5].tolist()


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_without_refit_the_best_epochs_towers_are_kept(average: float, rates: list[float]) -> None:
    rates += [0.1, 0.5, 0.2, 0.2]
    training = {"refit": False, "weight_average": average, "final_learning_rate_frac": 1.0, "warmup_frac": 0.0}
    kept = _fitted({}, {**training, "epochs": 4})
    rates[:] = [0.1, 0.5]
    assert model_bytes(_fitted({}, {**training, "epochs": 2}).two_tower) == model_bytes(kept.two_tower)
    assert len(kept.scores) == 4


def test_prior_of_the_best_epoch_is_kept() -> None:
    result = _fitted({"prior": True}, {"epochs": 4})
    assert all(0 <= score.plain_hit_rate <= score.hit_rate <= 1 for score in result.scores)
    best = result.scores[result.report["best_epoch"] - 1]
    assert result.prior is not None
    assert best.prior == (result.prior.popularity, result.prior.recent, result.prior.half_life_days, result.prior.growth)
    assert _fitted({}, {"epochs": 4}).prior is None


def test_search_learns_nothing_of_the_validation_days() -> None:
    """Other items and features of the last day change the scores, and no loss of the search."""
    tables, spec_model = world(events=16), {"history": "leave_one_out", "user_positive_mask": True, "sampler": "uniform"}
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


def test_validation_days_that_leave_nothing_to_learn_from_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"training.validation_days.*4 of 4 days"):
        _fitted({}, {"validation_days": 4})


def test_plain_fit_runs_without_the_folders_of_options() -> None:
    """In a process that cannot import several_processes and closed_form, by the step's own way to a fit."""
    script = """
import sys
for name in ("extras.several_processes", "core.training.closed_form"):
    sys.modules[f"dssm_assets.{name}"] = None
import dssm_assets.steps.dssm_model
from dssm_assets_tests.core.training.worlds import fitted
print(len(fitted({}, {"epochs": 1}).loss_by_step) > 0)
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert ended.stdout == "True\n", ended.stderr
