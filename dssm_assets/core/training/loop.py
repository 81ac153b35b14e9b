"""The training loop: from training data to fitted towers.

Belongs here: `fit`, its phases, the epochs of each, its optional inputs. Does not belong here: batches (`batches`), steps
(`trainer`), scoring of towers (`validation`), the report (`fit_report`), storing results (`steps/fit_job.py`).

Without validation days there is one phase. With validation days, the first phase is the search: towers are fitted to the days
before them and scored after every epoch. With `refit` a final phase follows: new towers are fitted to the whole window for the
best number of epochs, under the same schedule. The search uses the validation days only for scoring.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dssm_assets.core.arrays.ragged import IntArray
from dssm_assets.core.config.model import Model
from dssm_assets.core.config.training import StepPlan, Training, batches_per_epoch, planned_steps, samples_per_epoch
from dssm_assets.core.errors import ConfigError, Fault
from dssm_assets.core.models.group_codes import GroupCodes
from dssm_assets.core.models.prior import Prior
from dssm_assets.core.models.tower_spec import spec_faults, tower_spec
from dssm_assets.core.models.two_tower import TwoTower
from dssm_assets.core.training.batches import epoch_batches
from dssm_assets.core.training.compute import SINGLE_PROCESS, ComputeContext, Ranks, device_of, is_bfloat16
from dssm_assets.core.training.data import TrainData
from dssm_assets.core.training.fit_report import EpochScore, FitClock, FitHistory, FitResult, Progress, fit_report
from dssm_assets.core.training.resume import Checkpoints, WarmStart
from dssm_assets.core.training.trainer import Trainer
from dssm_assets.core.training.validation import EpochEvaluator

_BEST = "best."
"""Prefix of the search's best weights in a stored state."""


@dataclass(frozen=True)
class FitContext:
    """Optional inputs of a fit, besides data and configuration.

    Attributes:
        progress: called after every step.
        after_epoch: called with all scores after each scored epoch; an exception from it ends the fit.
        now: seconds of a clock that never goes back; only reported numbers depend on it.
        ks: cut-offs of the evaluation, for hit_rate@k on the validation days.
        plan: planned warm-up and decay, stretched to the number of steps. None: computed from the training section.
        warm_start: weights to start from. None: random weights.
        checkpoints: stores the state of the fit.
        ranks: the processes that share every batch.
    """

    progress: Callable[[Progress], None] = lambda at: None
    after_epoch: Callable[[Sequence[EpochScore]], None] = lambda scores: None
    now: Callable[[], float] = time.perf_counter
    ks: Sequence[int] = (200,)
    plan: StepPlan | None = None
    warm_start: WarmStart | None = None
    checkpoints: Checkpoints = field(default_factory=Checkpoints)
    ranks: Ranks = SINGLE_PROCESS


def fit(data: TrainData, *, model: Model, training: Training, seed: int, context: FitContext | None = None) -> FitResult:
    """Fits towers of the data's specification. Same data, configuration and seed give the same bytes.

    Raises:
        ConfigError: data and sections disagree, there are no negatives, or the device is missing.
        SchemaError: there is no sample, or no user to score on the validation days.
    """
    check_fit(data, model, training)
    torch.set_num_threads(training.num_threads)
    run = _FitRun(data, model, training, seed, context or FitContext())
    if run.search_rows is not None:
        towers = run.search(run.search_rows)
    if run.final_rows is not None:
        towers = run.fit_final(run.final_rows)
    return run.result(towers)


def check_fit(data: TrainData, model: Model, training: Training) -> None:
    """Raises a ConfigError with every conflict between the data and these sections.

    Conflicts between sections are found earlier, when the configuration is read.
    """
    remedy = "make the specification from this model section"
    faults = spec_faults(tower_spec(data.spec.features, model), data.spec, "towers against the model section", remedy)
    if training.svd_init is not None:
        from dssm_assets.core.training.closed_form.svd_init import svd_init_faults

        faults += svd_init_faults(data.spec, training.svd_init)
    if training.validation_days >= data.num_days:
        got = f"{training.validation_days} of {data.num_days} days with samples"
        expected = "days to train on before the validation days"
        faults.append(Fault("training.validation_days", expected, got, "lengthen the window or set it lower"))
    ConfigError.raise_if(faults)


class _FitRun:
    """The phases of one fit over one history.

    Attributes:
        search_rows: the samples to train on in the search, None without a search, and after it.
        final_rows: the samples to train on in the final phase, None without a final phase.
    """

    def __init__(self, data: TrainData, model: Model, training: Training, seed: int, context: FitContext) -> None:
        self._data, self._seed, self._model, self._training, self._context = data, seed, model, training, context
        has_search = training.validation_days > 0
        self._history, self._saved = context.checkpoints.restore() or (FitHistory(is_search=has_search), {})
        self._history.resumed_at = self._history.steps_done or None
        self._first_validation_day = data.num_days - training.validation_days
        select = partial(data.rows_of_days, 0, min_history=model.min_history, targets=model.targets)
        self.search_rows = select(self._first_validation_day) if self._history.is_search else None
        self.final_rows = select(data.num_days) if training.refit or not has_search else None
        device = device_of(training.device)
        self._compute = ComputeContext(device, is_bfloat16(training.precision, device), context.ranks)
        self._clock = FitClock(context.now)
        self._best_weights: dict[str, Tensor] = {}  # weights of the search's best epoch
        self._group_codes: GroupCodes | None = None
        self._warm_start_report: dict[str, Any] | None = None

    def search(self, rows: IntArray) -> TwoTower:
        """Finds the best number of epochs and the prior. Returns the towers of the best epoch."""
        history, context = self._history, self._context
        evaluator = EpochEvaluator(self._data, self._first_validation_day, self._model, context.ks, ranks=context.ranks)
        trainer = self._new_trainer(rows, self._first_validation_day)
        for _ in self._train_epochs(trainer, rows, self._training.epochs):
            with trainer.evaluation_weights():
                history.scores.append(evaluator.score(trainer.two_tower, history.epoch))
                context.after_epoch(history.scores)
                best_epoch = history.best.epoch if history.best else 0
                if best_epoch == history.epoch:
                    state = trainer.two_tower.state_dict()
                    self._best_weights = {name: tensor.to("cpu", copy=True) for name, tensor in state.items()}
            if history.epoch - best_epoch >= self._training.patience:
                break
        trainer.two_tower.load_state_dict(self._best_weights)
        history.end_search()
        return trainer.two_tower

    def fit_final(self, rows: IntArray) -> TwoTower:
        best = self._history.best
        trainer = self._new_trainer(rows, self._data.num_days)
        for _ in self._train_epochs(trainer, rows, self._training.epochs if best is None else best.epoch):
            pass
        trainer.finish()
        return trainer.two_tower

    def result(self, towers: TwoTower) -> FitResult:
        """Moves the towers to the CPU. Returns them with the record of the fit."""
        towers.cpu()
        history, best = self._history, self._history.best
        prior = None
        if best is not None and best.prior is not None:
            prior = Prior(**dict(zip(Prior.model_fields, best.prior, strict=True)))
        report = fit_report(history, self._clock, self._model, self._training) | {
            "samples": self._data.num_samples,
            "device": self._compute.device.type,
            "is_bfloat16": self._compute.bfloat16,
            "warm_start": self._warm_start_report,
        }
        return FitResult(
            towers,
            np.array(history.losses or history.search_losses, np.float32),
            report,
            np.array(history.search_losses, np.float32),
            tuple(history.scores),
            prior,
            self._group_codes,
            {} if self.final_rows is None else self._best_weights,
        )

    def _train_epochs(self, trainer: Trainer, rows: IntArray, epochs: int) -> Iterator[None]:
        history, training, context = self._history, self._training, self._context
        phase, steps = "search" if history.is_search else "fit", epochs * batches_per_epoch(len(rows), training)
        for epoch in range(history.epoch, epochs):
            batches = epoch_batches(
                self._data,
                rows,
                model=self._model,
                training=training,
                seed=self._seed,
                epoch=epoch,
                first=history.step,
                ranks=context.ranks,
            )
            for batch in self._clock.time_waits(batches):
                history.losses.append(trainer.train_step(batch))
                history.step += 1
                self._clock.count_samples(batch.count)
                eta_s, at_most_s = map(self._clock.seconds_for, self._samples_left())
                rate, loss = self._clock.samples_per_s, history.losses[-1]
                context.progress(Progress(len(history.losses), steps, epoch, loss, rate, eta_s, at_most_s, phase))
                context.checkpoints.save_if_due(history, partial(self._state, trainer))
            history.epoch, history.step = epoch + 1, 0
            yield

    def _state(self, trainer: Trainer) -> dict[str, Tensor]:
        return {**trainer.state(), **{f"{_BEST}{name}": tensor for name, tensor in self._best_weights.items()}}

    def _new_trainer(self, rows: IntArray, before_day: int) -> Trainer:
        """Returns the trainer of a phase. It continues from the stored state if there is one.

        Args:
            before_day: the first weights depend only on days before this day.
        """
        model, training, device = self._model, self._training, self._compute.device
        initial, dropout = (int(word) for word in np.random.SeedSequence(self._seed).generate_state(2))
        generator = torch.Generator().manual_seed(initial)
        towers = self._compute.ranks.new_towers(self._data.spec, generator, shard_tables=training.shard_tables)
        self._write_first_weights(towers, before_day)
        towers.to(device)
        plan = planned_steps(len(rows), training)
        if self._context.plan is not None:
            plan = self._context.plan.over(plan.num_steps)
        trainer = Trainer(towers, model, training, seed=dropout, plan=plan, compute=self._compute)
        if self._saved:
            self._best_weights = {n.removeprefix(_BEST): tensor for n, tensor in self._saved.items() if n.startswith(_BEST)}
            trainer.load(self._saved)
            self._saved = {}  # the next phase starts with an empty state
        return trainer

    def _write_first_weights(self, towers: TwoTower, before_day: int) -> None:
        """Overwrites random weights with weights of an earlier model (warm start) and of `svd_init`."""
        warm_start, section, data = self._context.warm_start, self._training.svd_init, self._data
        if warm_start is not None:
            self._warm_start_report = warm_start.copy_into(towers)
        # A frozen embedding is computed again every day. Other embeddings continue from the earlier model.
        if section is None or (warm_start is not None and data.spec.frozen_embedding is None):
            return
        # In a resumed fit the towers come from the stored state, but the state has no codes of groups.
        if not self._saved or section.group_by:
            from dssm_assets.core.training.closed_form.svd_init import write_codes

            self._group_codes = write_codes(towers, data, section, data.user_ends(before_day))

    def _samples_left(self) -> tuple[int, int]:
        """Returns the number of samples left if the search stops as early as possible, and if it does not stop early."""
        training, history, both = self._training, self._history, (self.search_rows, self.final_rows)
        search, final = (0 if rows is None else samples_per_epoch(len(rows), training) for rows in both)
        best = 1 if history.best is None else history.best.epoch
        of_epoch = search if history.is_search else final
        done = history.epoch * of_epoch + min(history.step * training.batch_size, of_epoch)
        if history.is_search:
            soonest = min(best + training.patience, training.epochs) * search + best * final
            return soonest - done, training.epochs * (search + final) - done
        left = final * (training.epochs if history.best is None else best) - done
        return left, left
