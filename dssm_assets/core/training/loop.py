"""The training loop: from training data to fitted towers.

Belongs here: `fit`, its phases, the epochs of each. Does not belong here: what a batch is (`batches`), what a step does
(`trainer`), how towers are scored (`validation`), what a fit reports (`fit_report`), its optional parts (`fit_options`),
where results are stored (`steps/fit_job.py`).

Without validation days there is one phase. With them, the search: towers are fitted to the days before and scored after
every epoch. Then, with `refit`, the final phase: new towers are fitted to the whole window for the best number of epochs,
under the same schedule. Until the choice is made, the validation days are read for scoring alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dssm_assets.core.arrays.ragged import IntArray
from dssm_assets.core.config.model import Model, Sampler
from dssm_assets.core.config.training import StepPlan, Training, batches_per_epoch, planned_steps, samples_per_epoch
from dssm_assets.core.errors import ConfigError, Fault
from dssm_assets.core.models.group_codes import GroupCodes
from dssm_assets.core.models.prior import Prior
from dssm_assets.core.models.products import by_numpy, is_numpy_faster
from dssm_assets.core.models.tower_spec import TowerSpec, spec_faults, tower_spec
from dssm_assets.core.models.two_tower import TwoTower
from dssm_assets.core.training.batches import epoch_batches
from dssm_assets.core.training.compute import ComputeContext, device_of, is_bfloat16
from dssm_assets.core.training.data import TrainData
from dssm_assets.core.training.fit_options import FitContext, embedding_start
from dssm_assets.core.training.fit_report import FitClock, FitHistory, FitResult, Progress, fit_report
from dssm_assets.core.training.step_hooks import ItemQueue, StepHook, WeightAverage
from dssm_assets.core.training.trainer import Trainer
from dssm_assets.core.training.validation import EpochEvaluator

_BEST = "best."
"""Prefix of the weights of the search's best epoch in a stored state."""


def fit(
    data: TrainData,
    spec: TowerSpec,
    *,
    model: Model,
    training: Training,
    seed: int,
    progress: Callable[[Progress], None],
    now: Callable[[], float],
    context: FitContext | None = None,
    plan: StepPlan | None = None,
) -> FitResult:
    """Returns towers fitted to the data. Same data, configuration and seed give the same bytes.

    Args:
        spec: the towers; must be what `tower_spec` returns for the model section.
        now: seconds of a clock that never goes back; only reported numbers depend on it.
        context: the optional parts: earlier weights, checkpoints, other processes. None: without them.
        plan: warm-up and decay as configured, stretched to the steps that the samples give; None: by the training section.

    Raises:
        ConfigError: spec, data and sections disagree, there are no negatives, or the device is missing.
        SchemaError: there is no sample, or no user to score on the validation days.
    """
    check_fit(data, spec, model, training)
    torch.set_num_threads(training.num_threads)
    run = _FitRun(data, spec, model, training, seed, progress, now, context or FitContext(), plan)
    if run.history.is_search:
        towers = run.search()
    if training.refit or not training.validation_days:
        towers = run.fit_final()
    return run.result(towers)


def check_fit(data: TrainData, spec: TowerSpec, model: Model, training: Training) -> None:
    """Checks that towers of this specification can be fitted to the data under these sections.

    Raises:
        ConfigError: naming everything that disagrees.
    """
    expected_spec = tower_spec(spec.features, model)
    remedy = "make the specification from this model section"
    faults = spec_faults(expected_spec, spec, "towers against the model section", remedy)
    faults += spec_faults(spec, data.spec, "training data", "open the data with the specification of the towers")
    faults += embedding_start(training).find_faults(spec)
    if not model.in_batch and model.num_sample == 0 and model.sampler is not Sampler.ALL:
        got = f"in_batch off, num_sample 0 and sampler {model.sampler}"
        faults.append(Fault("model", "negatives: in_batch, num_sample, or sampler all", got, "switch one of them on"))
    if model.frozen_embedding is not None and training.svd_init is None:
        expected = "training.svd_init, which computes the frozen embedding"
        faults.append(Fault("model.frozen_embedding", expected, "none", "set it, or unset frozen_embedding"))
    if model.prior and not training.validation_days:
        got = "none: validation_days is 0"
        faults.append(Fault("model.prior", "validation days on which it is chosen", got, "set training.validation_days"))
    if training.validation_days >= data.num_days:
        got = f"{training.validation_days} of {data.num_days} days with samples"
        expected = "days before them that are trained on"
        faults.append(Fault("training.validation_days", expected, got, "lengthen the window or set it lower"))
    ConfigError.raise_if(faults)


class _FitRun:
    """The phases of one fit over one history."""

    def __init__(
        self,
        data: TrainData,
        spec: TowerSpec,
        model: Model,
        training: Training,
        seed: int,
        progress: Callable[[Progress], None],
        now: Callable[[], float],
        context: FitContext,
        plan: StepPlan | None,
    ) -> None:
        self._data, self._spec, self._model, self._training, self._seed = data, spec, model, training, seed
        self._progress, self._context, self._plan = progress, context, plan
        device = device_of(training.device)
        self._compute = ComputeContext(device, is_bfloat16(training.precision, device), context.ranks)
        self._first_validation_day = data.num_days - training.validation_days
        self._warm_start_report: dict[str, Any] | None = None
        self._best_weights: dict[str, Tensor] = {}
        self._group_codes: GroupCodes | None = None
        restored = context.checkpoints.restore()
        self.history, self._saved = restored or (FitHistory(is_search=training.validation_days > 0), {})
        if restored:
            self.history.resumed_at = self.history.steps_done
        self._search_rows = self._rows_before(self._first_validation_day) if self.history.is_search else None
        self._final_rows = self._rows_before(data.num_days) if training.refit or not training.validation_days else None
        self._clock = FitClock(self._samples_left(), now)

    def search(self) -> TwoTower:
        """Finds the number of epochs and the prior; returns the towers of the best epoch."""
        history, training, ranks = self.history, self._training, self._context.ranks
        evaluator = EpochEvaluator(self._data, self._first_validation_day, self._model, self._context.ks, ranks=ranks)
        assert self._search_rows is not None
        trainer = self._new_trainer(self._search_rows)
        for _ in self._train_epochs(trainer, self._search_rows, training.epochs):
            with trainer.evaluation_weights():
                history.scores.append(evaluator.score(trainer.two_tower, history.epoch))
                best = history.best
                assert best is not None
                self._context.after_epoch(history.scores)
                if best.epoch == history.epoch:
                    self._best_weights = {
                        name: tensor.to("cpu", copy=True) for name, tensor in trainer.two_tower.state_dict().items()
                    }
            if history.epoch - best.epoch >= training.patience:
                break
        if self._best_weights:
            trainer.two_tower.load_state_dict(self._best_weights)
        history.end_search()
        return trainer.two_tower

    def fit_final(self) -> TwoTower:
        """Returns towers fitted to the whole window, after a search for its best number of epochs."""
        best = self.history.best
        assert self._final_rows is not None
        trainer = self._new_trainer(self._final_rows)
        for _ in self._train_epochs(trainer, self._final_rows, self._training.epochs if best is None else best.epoch):
            pass
        trainer.finish()
        return trainer.two_tower

    def _train_epochs(self, trainer: Trainer, rows: IntArray, epochs: int) -> Iterator[None]:
        """Trains the epochs that are left of this phase, and yields after each."""
        history, training = self.history, self._training
        steps = epochs * batches_per_epoch(len(rows), training)
        for epoch in range(history.epoch, epochs):
            if not history.step:
                trainer.begin_epoch()
            batches = epoch_batches(
                self._data,
                rows,
                model=self._model,
                training=training,
                seed=self._seed,
                epoch=epoch,
                first=history.step,
                new_epoch=self._context.ranks.new_epoch,
            )
            with by_numpy(is_numpy_faster()):
                while (batch := self._clock.wait_for(partial(next, batches, None))) is not None:
                    history.losses.append(trainer.train_step(batch))
                    history.step += 1
                    rate, eta_s = self._clock.count_samples(len(batch))
                    phase = "search" if history.is_search else "fit"
                    self._progress(Progress(len(history.losses), steps, epoch, history.losses[-1], rate, eta_s, phase))
                    self._context.checkpoints.save_if_due(history, partial(self._state, trainer))
            history.epoch, history.step = epoch + 1, 0
            yield

    def _new_trainer(self, rows: IntArray) -> Trainer:
        """Returns a trainer at the start of its phase, or where the stored state left it."""
        initial, dropout = np.random.SeedSequence(self._seed).generate_state(2)
        training, ranks = self._training, self._context.ranks
        generator = torch.Generator().manual_seed(int(initial))
        towers = ranks.new_towers(self._spec, generator, shard_tables=training.shard_tables)
        self._write_first_weights(towers)
        towers.to(self._compute.device)
        plan = planned_steps(len(rows), training)
        if self._plan is not None:
            plan = self._plan.over(plan.num_steps)
        trainer = Trainer(
            towers,
            self._model,
            training,
            seed=int(dropout),
            plan=plan,
            compute=self._compute,
            hooks=self._new_hooks(towers),
        )
        if self._saved:
            self._best_weights = {n.removeprefix(_BEST): tensor for n, tensor in self._saved.items() if n.startswith(_BEST)}
            trainer.load(self._saved)
            self._saved = {}
        return trainer

    def _new_hooks(self, towers: TwoTower) -> list[StepHook]:
        hooks: list[StepHook] = []
        if self._training.weight_average:
            hooks.append(WeightAverage(towers, self._training.weight_average))
        if self._model.queue_batches:
            hooks.append(ItemQueue(self._model.queue_batches, self._compute.device))
        return hooks

    def _write_first_weights(self, towers: TwoTower) -> None:
        """Overwrites random weights by earlier ones and by `svd_init`."""
        warm_start = self._context.warm_start
        if warm_start is not None:
            self._warm_start_report = warm_start.copy_into(towers)
        # A frozen embedding is computed again every day; any other one continues from the earlier model.
        start = embedding_start(self._training)
        # After a kill the towers come from the stored state, but the codes of groups are not part of it.
        is_needed = not self._saved or start.has_groups
        if is_needed and (warm_start is None or self._spec.frozen_embedding is not None):
            before_day = self._first_validation_day if self.history.is_search else None
            self._group_codes = start.write_into(towers, self._data, before_day)

    def _state(self, trainer: Trainer) -> dict[str, Tensor]:
        return {**trainer.state(), **{f"{_BEST}{name}": tensor for name, tensor in self._best_weights.items()}}

    def _rows_before(self, day: int) -> IntArray:
        model = self._model
        return self._data.rows_of_days(0, day, min_history=model.min_history, targets=model.targets)

    def _samples_left(self) -> int:
        """Returns how many samples the remaining epochs read if none is saved by stopping early."""
        training, history = self._training, self.history
        phases = [rows for rows in (self._search_rows, self._final_rows) if rows is not None]
        left = sum(samples_per_epoch(len(rows), training) for rows in phases) * training.epochs
        if phases:
            left -= history.epoch * samples_per_epoch(len(phases[0]), training) + history.step * training.batch_size
        return left

    def result(self, towers: TwoTower) -> FitResult:
        """Returns the towers, moved to the CPU, and how the fit went."""
        towers.cpu()
        history, best = self.history, self.history.best
        prior = None
        if best is not None and best.prior is not None:
            popularity, recent, half_life = best.prior
            prior = Prior(popularity=popularity, recent=recent, half_life_days=half_life)
        report = fit_report(history, towers, self._clock, self._model, self._training)
        report |= {"samples": self._data.num_samples, "device": self._compute.device.type}
        report |= {"is_bfloat16": self._compute.bfloat16, "peak_bytes": self._context.peak_bytes()}
        report |= {"warm_start": self._warm_start_report}
        losses = np.array(history.losses or history.search_losses, np.float32)
        search_losses = np.array(history.search_losses, np.float32)
        search_weights = self._best_weights if self._final_rows is not None else {}
        return FitResult(towers, losses, report, search_losses, tuple(history.scores), prior, self._group_codes, search_weights)
