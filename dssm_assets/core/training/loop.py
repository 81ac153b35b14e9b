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
from dataclasses import dataclass, field
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
from dssm_assets.core.models.tower_spec import TowerSpec, spec_faults, tower_spec
from dssm_assets.core.models.two_tower import TwoTower
from dssm_assets.core.training.batches import epoch_batches
from dssm_assets.core.training.compute import ComputeContext, device_of, is_bfloat16
from dssm_assets.core.training.data import TrainData
from dssm_assets.core.training.fit_options import FitContext
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
    context, has_search = context or FitContext(), training.validation_days > 0
    history, saved = context.checkpoints.restore() or (FitHistory(is_search=has_search), {})
    history.resumed_at = history.steps_done or None
    first_validation_day = data.num_days - training.validation_days
    select_rows = partial(data.rows_of_days, 0, min_history=model.min_history, targets=model.targets)
    search_rows = select_rows(first_validation_day) if history.is_search else None
    final_rows = select_rows(data.num_days) if training.refit or not has_search else None
    run = _FitRun(
        data=data,
        spec=spec,
        model=model,
        training=training,
        seed=seed,
        context=context,
        plan=plan,
        progress=progress,
        clock=FitClock(_samples_left(history, training, search_rows, final_rows), now),
        history=history,
        saved=saved,
    )
    if search_rows is not None:
        towers = run.search(search_rows, first_validation_day)
    if final_rows is not None:
        towers = run.fit_final(final_rows)
    return run.result(towers, final_rows is not None)


def check_fit(data: TrainData, spec: TowerSpec, model: Model, training: Training) -> None:
    """Checks that towers of this specification can be fitted to the data under these sections.

    Raises:
        ConfigError: naming everything that disagrees.
    """
    faults = spec_faults(
        tower_spec(spec.features, model),
        spec,
        "towers against the model section",
        "make the specification from this model section",
    )
    faults += spec_faults(spec, data.spec, "training data", "open the data with the specification of the towers")
    if training.svd_init is not None:
        from dssm_assets.core.training.closed_form.svd_init import svd_init_faults

        faults += svd_init_faults(spec, training.svd_init)
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


@dataclass(kw_only=True)
class _FitRun:
    """The phases of one fit over one history.

    Attributes:
        saved: tensors of a killed fit, for the first trainer; empty once it has them.
        best_weights: of the best epoch of the search.
    """

    data: TrainData
    spec: TowerSpec
    model: Model
    training: Training
    seed: int
    context: FitContext
    plan: StepPlan | None
    progress: Callable[[Progress], None]
    clock: FitClock
    history: FitHistory
    saved: dict[str, Tensor]
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    group_codes: GroupCodes | None = None
    warm_start_report: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        device = device_of(self.training.device)
        self.compute = ComputeContext(device, is_bfloat16(self.training.precision, device), self.context.ranks)

    def search(self, rows: IntArray, first_validation_day: int) -> TwoTower:
        """Finds the number of epochs and the prior; returns the towers of the best epoch."""
        history = self.history
        evaluator = EpochEvaluator(self.data, first_validation_day, self.model, self.context.ks, ranks=self.context.ranks)
        trainer = self._new_trainer(rows, before_day=first_validation_day)
        for _ in self._train_epochs(trainer, rows, self.training.epochs):
            with trainer.evaluation_weights():
                history.scores.append(evaluator.score(trainer.two_tower, history.epoch))
                self.context.after_epoch(history.scores)
                best_epoch = history.best.epoch if history.best else 0
                if best_epoch == history.epoch:
                    state = trainer.two_tower.state_dict()
                    self.best_weights = {name: tensor.to("cpu", copy=True) for name, tensor in state.items()}
            if history.epoch - best_epoch >= self.training.patience:
                break
        if self.best_weights:
            trainer.two_tower.load_state_dict(self.best_weights)
        history.end_search()
        return trainer.two_tower

    def fit_final(self, rows: IntArray) -> TwoTower:
        """Returns towers fitted to the whole window, after a search for its best number of epochs."""
        best = self.history.best
        trainer = self._new_trainer(rows, before_day=None)
        for _ in self._train_epochs(trainer, rows, self.training.epochs if best is None else best.epoch):
            pass
        trainer.finish()
        return trainer.two_tower

    def _train_epochs(self, trainer: Trainer, rows: IntArray, epochs: int) -> Iterator[None]:
        """Trains the epochs that are left of this phase, and yields after each."""
        history, training, ranks = self.history, self.training, self.context.ranks
        phase, steps = "search" if history.is_search else "fit", epochs * batches_per_epoch(len(rows), training)
        for epoch in range(history.epoch, epochs):
            if not history.step:
                trainer.begin_epoch()
            batches = epoch_batches(
                self.data,
                rows,
                model=self.model,
                training=training,
                seed=self.seed,
                epoch=epoch,
                first=history.step,
                ranks=ranks,
            )
            while (batch := self.clock.wait_for(partial(next, batches, None))) is not None:
                history.losses.append(trainer.train_step(batch))
                history.step += 1
                rate, eta_s = self.clock.count_samples(batch.count)
                self.progress(Progress(len(history.losses), steps, epoch, history.losses[-1], rate, eta_s, phase))
                self.context.checkpoints.save_if_due(history, partial(self._state, trainer))
            history.epoch, history.step = epoch + 1, 0
            yield

    def _state(self, trainer: Trainer) -> dict[str, Tensor]:
        return {**trainer.state(), **{f"{_BEST}{name}": tensor for name, tensor in self.best_weights.items()}}

    def _new_trainer(self, rows: IntArray, before_day: int | None) -> Trainer:
        """Returns a trainer at the start of its phase, or where the stored state left it.

        Args:
            before_day: the first weights depend on the days before this one alone; None: on the whole window.
        """
        model, training, device = self.model, self.training, self.compute.device
        initial, dropout = (int(word) for word in np.random.SeedSequence(self.seed).generate_state(2))
        generator = torch.Generator().manual_seed(initial)
        towers = self.context.ranks.new_towers(self.spec, generator, shard_tables=training.shard_tables)
        self._write_first_weights(towers, before_day)
        towers.to(device)
        plan = planned_steps(len(rows), training)
        if self.plan is not None:
            plan = self.plan.over(plan.num_steps)
        hooks: list[StepHook] = []
        if training.weight_average:
            hooks.append(WeightAverage(towers, training.weight_average))
        if model.queue_batches:
            hooks.append(ItemQueue(model.queue_batches, device))
        trainer = Trainer(towers, model, training, seed=dropout, plan=plan, compute=self.compute, hooks=hooks)
        if self.saved:
            self.best_weights = {n.removeprefix(_BEST): tensor for n, tensor in self.saved.items() if n.startswith(_BEST)}
            trainer.load(self.saved)
            self.saved = {}
        return trainer

    def _write_first_weights(self, towers: TwoTower, before_day: int | None) -> None:
        """Overwrites random weights by earlier ones and by `svd_init`."""
        warm_start, section = self.context.warm_start, self.training.svd_init
        if warm_start is not None:
            self.warm_start_report = warm_start.copy_into(towers)
        # A frozen embedding is computed again every day; any other one continues from the earlier model.
        if section is None or (warm_start is not None and self.spec.frozen_embedding is None):
            return
        # After a kill the towers come from the stored state, but the codes of groups are not part of it.
        if not self.saved or section.group_by:
            from dssm_assets.core.training.closed_form.svd_init import write_codes

            data = self.data
            ends = data.user_ends() if before_day is None else data.user_ends(data.first_time_ms(before_day))
            self.group_codes = write_codes(towers, data, section, ends)

    def result(self, towers: TwoTower, is_refitted: bool) -> FitResult:
        """Returns the towers, moved to the CPU, and how the fit went."""
        towers.cpu()
        history, best = self.history, self.history.best
        prior = None
        if best is not None and best.prior is not None:
            popularity, recent, half_life = best.prior
            prior = Prior(popularity=popularity, recent=recent, half_life_days=half_life)
        report = fit_report(history, towers, self.clock, self.model, self.training)
        report |= {"samples": self.data.num_samples, "device": self.compute.device.type}
        report |= {"is_bfloat16": self.compute.bfloat16, "peak_bytes": self.context.peak_bytes()}
        report |= {"warm_start": self.warm_start_report}
        losses = np.array(history.losses or history.search_losses, np.float32)
        search_losses = np.array(history.search_losses, np.float32)
        search_weights = self.best_weights if is_refitted else {}
        return FitResult(towers, losses, report, search_losses, tuple(history.scores), prior, self.group_codes, search_weights)


def _samples_left(history: FitHistory, training: Training, search_rows: IntArray | None, final_rows: IntArray | None) -> int:
    """Returns how many samples the remaining epochs read if none is saved by stopping early."""
    phases = [samples_per_epoch(len(rows), training) for rows in (search_rows, final_rows) if rows is not None]
    done = history.epoch * phases[0] + history.step * training.batch_size if phases else 0
    return sum(phases) * training.epochs - done
